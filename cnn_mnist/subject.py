"""What is looked at: a trained network, the data it was trained on, and a few images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor

from cnn_mnist import archive, checkpoint, picture
from cnn_mnist.analysis.likeness import nearest
from cnn_mnist.data import EVAL_BATCH_SIZE, DataModule, Images
from cnn_mnist.files import read_json, shown
from cnn_mnist.network import CNN
from cnn_mnist.tasks import OF_A_PICTURE, OF_THE_NETWORK

OTHER = "other"  # folder, and key, of what was found in the second of two networks
HAVE_AN_EFFECT = ("data.dataset", "data.root", *(f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes")))
NUM_REAL = 1000  # test digits that say how near to the training images is near


@dataclass(eq=False)
class Subject:
    """A network in eval mode, on its device, and a few images on the CPU.

    Attributes:
        network: The network.
        checkpoint: Where it came from.
        dataset: The data set of the images, or `picture`.
        images: (B, 1, 28, 28) in [0, 1].
        labels: The classes to explain, int64 (B,): the true ones, or the predicted one of a picture.
        indices: Places in the test set, int64 (B,); -1 for a picture.
        test: The whole test set; None where the one image is a picture of the user's own, or where none is needed.
        train: The training set; None with `test`.
        other: The one that it is compared with, which looks at the same images; None without.
        run: What the training run left on record; empty where the checkpoint does not lie in a run's folder.
        recipe: The arguments of its module and of its data, as the checkpoint has them.
    """

    network: CNN
    checkpoint: Path
    dataset: str
    images: Tensor
    labels: Tensor
    indices: Tensor
    test: Images | None
    train: Images | None = None
    other: "Subject | None" = None
    run: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where its run lives, if it lies in one."""
        return self.checkpoint.parent.parent

    @property
    def name(self) -> str:
        """What its analyses are filed under: its run, or else its file."""
        file = self.checkpoint.resolve()
        run = file.parent.parent
        return f"{run.parent.name}_{run.name}" if file.parent.name == "checkpoints" else file.stem

    @property
    def facts(self) -> dict[str, Any]:
        """What heads the record of an analysis, the other one's too, if there is one."""
        names = [self.name] if self.other is None else [name_of(self, self.other), name_of(self.other, self)]
        return {
            "title": " and ".join(names),
            "names": names,
            **self._place,
            "dataset": self.dataset,
            "images": self.indices.tolist(),
            "labels": self.labels.tolist(),
            **({} if self.test is None else {"num_test_images": len(self.test)}),
            **({} if self.other is None else {"against_checkpoint": self.other._place["checkpoint"]}),
            **({} if self.other is None else {OTHER: self.other._place}),
        }

    @property
    def _place(self) -> dict[str, str]:
        """Where its checkpoint is, and the same as a reader wants it: from the folder of the command."""
        file = self.checkpoint.resolve()
        return {"checkpoint": str(file), "network": shown(file)}

    @cached_property
    def probability(self) -> Tensor:
        """Of each class for each test image, (N, 10), on the CPU."""
        assert self.test is not None
        with torch.no_grad():
            batches = (
                self.network(self.test[index].images.to(self.device)).softmax(1).cpu()
                for index in torch.arange(len(self.test)).split(EVAL_BATCH_SIZE)
            )
            return torch.cat(list(batches))

    @cached_property
    def usual_distance(self) -> Tensor:
        """How far test digits are from the nearest training image, L2, (M,)."""
        assert self.train is not None
        assert self.test is not None
        real = self.test[self.test.spread(NUM_REAL)].images
        return nearest(real.to(self.device), self.train[:].images.to(self.device))[0].cpu()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.fc1.weight.device

    def on_device(self) -> tuple[Tensor, Tensor]:
        """The images and labels beside the network."""
        return self.images.to(self.device), self.labels.to(self.device)


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[dict[str, Any]]:
    """The options in which two trainings differ, of those that both have on record: `key`, `first` and `second`."""

    def written(value: Any) -> Any:
        return "none" if value is None else value

    return [
        {"key": key, "first": written(value), "second": written(second[key])}
        for key, value in first.items()
        if key in second and value != second[key]
    ]


def in_words(differing: Sequence[dict[str, Any]], key: str) -> str:
    """The differences as a clause for `report.prose`; `key` is where they stand in the findings."""
    places = (f"{key}.{k}" for k in range(len(differing)))
    return ", ".join(f"{{{at}.key}} ({{{at}.first}} and {{{at}.second}})" for at in places)


def name_of(side: Subject, other: Subject) -> str:
    """What tells one network from the other: its recipe, batch normalisation, another option, or else its folder."""
    names = []
    recipe = side.run.get("recipe")
    if recipe is not None and other.run.get("recipe") not in (None, recipe):
        names.append(f"experiment {recipe}")
    if side.network.batchnorm != other.network.batchnorm:
        names.append("the network with batch norm" if side.network.batchnorm else "the network without batch norm")
    if not names:
        names = [f"{one['key']} {one['first']}" for one in differences(side.recipe, other.recipe)]
    return ", ".join(names) or side.folder.name


def choose(cfg: DictConfig, overrides: list[str], names: Sequence[str] = OF_A_PICTURE) -> list[Subject]:
    """The network that `ckpt_path` names, or the newest, with the images that `images` or `image` name.

    With `against` there are two, which know of each other. The data set is the run's own, and so is the folder of its
    files, unless the command line names another; `cfg` then says which. Where none of the parts in `names` looks at
    images there are none, and no data set is needed.

    Raises:
        FileNotFoundError: There is no such run, checkpoint or picture.
        ValueError: The checkpoint or the picture is of another kind, an index is out of range, two networks cannot be
            compared, or an option has no effect on an analysis.
    """
    _refuse_what_has_no_effect(overrides)
    is_newest = cfg.ckpt_path in (None, archive.LAST)
    file = archive.newest() if is_newest else archive.find(cfg.ckpt_path, prefer_best=True)
    print(f"{'newest run: ' if is_newest else ''}{file}")
    own = picture.read(cfg.image) if cfg.image is not None else None
    cfg.ckpt_path = str(file)
    device = _device(cfg.trainer.accelerator)
    first = _of_checkpoint(file, device)
    second = None if cfg.against is None else _other(cfg.against, first)
    if own is None:
        _settle_data(cfg, overrides, file, first.recipe.get("dataset"))
        _look_at_data(cfg, first, needs_images=not set(names) <= set(OF_THE_NETWORK))
    else:
        _look_at_picture(first, own, cfg.image)
    if second is None:
        return [first]
    for attribute in ("dataset", "images", "labels", "indices", "test", "train"):
        setattr(second, attribute, getattr(first, attribute))
    first.other, second.other = second, first
    return [first, second]


def _of_checkpoint(file: Path, device: torch.device) -> Subject:
    """A network that looks at nothing yet, with what is on record about it."""
    content = checkpoint.read(file)
    run = read_json(file.parent.parent / "results.json")
    nothing = torch.empty(0, dtype=torch.long)
    return Subject(
        network=checkpoint.network_of(content, file).to(device),
        checkpoint=file,
        dataset="",
        images=torch.empty(0, 1, 28, 28),
        labels=nothing,
        indices=nothing,
        test=None,
        run=run,
        recipe={
            **content["hyper_parameters"],
            **content.get("datamodule_hyper_parameters", {}),
            "epochs": run.get("epochs", content["epoch"] + 1),  # of the training, whichever epoch a hold-out chose
        },
    )


def _refuse_what_has_no_effect(overrides: list[str]) -> None:
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key.startswith(("data.", "trainer.")) and key not in HAVE_AN_EFFECT:
            raise ValueError(f"{key} has no effect on an analysis: leave it out")


def _look_at_picture(subject: Subject, own: picture.Picture, name: str) -> None:
    """Predict a picture, say what was done to it, and explain the class that was predicted."""
    with torch.no_grad():
        probability = subject.network(own.image.to(subject.device)).softmax(1)[0].cpu()
    first, second = probability.topk(2).indices.tolist()
    print(*(f"{name}: {note}" for note in own.notes), sep="\n")
    print(f"predicted {first} (p {probability[first]:.3f}), then {second} (p {probability[second]:.3f})")
    subject.dataset, subject.images = "picture", own.image
    subject.labels, subject.indices = torch.tensor([first]), torch.tensor([-1])


def _look_at_data(cfg: DictConfig, subject: Subject, *, needs_images: bool) -> None:
    """Read the data set and choose the images, where any are needed."""
    subject.dataset = cfg.data.dataset
    if not needs_images:
        return
    data = DataModule(cfg.data.dataset, cfg.data.root, fallback=None).ready()
    subject.dataset, subject.test, subject.train = data.dataset, data.test, data.train
    subject.indices = _indices(cfg.images, data.test)
    subject.images, subject.labels = data.test[subject.indices]


def _other(path: str, first: Subject) -> Subject:
    """The one to compare with.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no checkpoint, or of another architecture or data set.
    """
    other = _of_checkpoint(archive.find(path, prefer_best=True, key="against"), first.device)
    if other.network.kernel_size != first.network.kernel_size:
        sizes = " and ".join(f"{side.network.kernel_size}x{side.network.kernel_size}" for side in (first, other))
        raise ValueError(f"the two networks have filters of {sizes}, which cannot be set side by side: set against=")
    asked, theirs = first.recipe.get("dataset"), other.recipe.get("dataset")
    if None not in (asked, theirs) and asked != theirs:
        raise ValueError(f"one network was trained on {asked}, the other on {theirs}: set against= to one on {asked}")
    return other


def _device(accelerator: str) -> torch.device:
    if accelerator == "cpu":
        return torch.device("cpu")
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def _settle_data(cfg: DictConfig, overrides: list[str], file: Path, dataset: str | None) -> None:
    """Put the run's own data set and folder into `cfg` where the command line names no others."""
    given = {override.partition("=")[0] for override in overrides}
    record = file.parent.parent / "config.yaml"
    own = OmegaConf.load(record) if record.is_file() else OmegaConf.create()
    root = OmegaConf.select(own, "data.root")
    if dataset is not None and not given & {"data", "data.dataset"}:
        cfg.data.dataset = dataset
    if root is not None and "data.root" not in given:
        cfg.data.root = root


def _indices(images: int | ListConfig, test: Images) -> Tensor:
    if isinstance(images, int):
        if images > len(test):
            raise ValueError(f"there are {len(test):,} test images, not {images:,}: set images=...")
        return test.of_each_class(images)
    indices = torch.tensor(list(images))
    if indices.max() >= len(test):
        raise ValueError(f"test images have the indices 0..{len(test) - 1:,}, got {indices.max():,}: set images=...")
    return indices
