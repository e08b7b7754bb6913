"""The subject of an analysis: a trained network, its data, and a few images."""

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from cnn_mnist.analysis.nearest import nearest
from cnn_mnist.data import sources
from cnn_mnist.data.batches import EVAL_BATCH_SIZE, Images
from cnn_mnist.networks.build import is_normalised
from cnn_mnist.report import dataset, own_pictures
from cnn_mnist.report.differences import differences
from cnn_mnist.runs import checkpoint, locate
from cnn_mnist.runs.files import read_json, shown

if TYPE_CHECKING:
    from cnn_mnist.data.picture import Picture

OTHER = "other"  # folder and key of the second network's findings
HAVE_AN_EFFECT = {"data.dataset", "data.root", "network._target_"}
HAVE_AN_EFFECT |= {"trainer.accelerator", "trainer.devices", "trainer.num_nodes"}
NUM_REAL = 1000  # test digits that give the usual distance to the training images


@dataclass(eq=False)
class Subject:
    """A network in eval mode, on its device, and a few images on the CPU.

    Attributes:
        network: The network.
        checkpoint: Its file.
        dataset: The data set of the images, or `picture`, or `pictures`.
        images: (B, 1, 28, 28) in [0, 1].
        labels: The classes to explain, int64 (B,): the true ones, or the predicted one of a picture.
        indices: Indices in the test set, int64 (B,); -1 for a picture.
        test: The whole test set; None for a picture of the user's own, or where no data are needed.
        read_train: Reads the training set; returns None if only a picture is looked at and there is none.
        other: The subject it is compared with, which has the same images; or None.
        run: The training run's results.json; empty if the checkpoint is not in a run's folder.
        recipe: The arguments of its LightningModule, its network and its data module, from the checkpoint.
        picture: The picture of the user's own, and how it was read.
        pictures: Several of them, instead.
    """

    network: nn.Module
    checkpoint: Path
    dataset: str
    images: Tensor
    labels: Tensor
    indices: Tensor
    test: Images | None
    read_train: Callable[[], Images | None] | None = None
    other: "Subject | None" = None
    run: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    picture: "Picture | None" = None
    pictures: list[own_pictures.Reading] = field(default_factory=list)

    @cached_property
    def picture_probability(self) -> Tensor:
        """Probability of each class for a picture of the user's own, (C,), on the CPU."""
        assert self.picture is not None
        with torch.no_grad():
            probability: Tensor = self.network(self.picture.image.to(self.device)).softmax(1)[0].cpu()
        return probability

    @cached_property
    def train(self) -> Images | None:
        """The training set, read when it is first used; None where it is not at hand."""
        return None if self.read_train is None else self.read_train()

    @property
    def folder(self) -> Path:
        """The folder of its run."""
        return self.checkpoint.parent.parent

    @property
    def name(self) -> str:
        """The name of the folder of its analyses: of its run, or else of its file."""
        file = self.checkpoint.resolve()
        run = file.parent.parent
        return f"{run.parent.name}_{run.name}" if file.parent.name == "checkpoints" else file.stem

    @property
    def facts(self) -> dict[str, Any]:
        """The first entries of the record of an analysis."""
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
        """The path of its checkpoint, absolute and as shown."""
        file = self.checkpoint.resolve()
        return {"checkpoint": str(file), "network": shown(file)}

    @cached_property
    def probability(self) -> Tensor:
        """Probability of each class for each test image, (N, C), on the CPU."""
        assert self.test is not None
        with torch.no_grad():
            batches = (
                self.network(self.test[index].images.to(self.device)).softmax(1).cpu()
                for index in torch.arange(len(self.test)).split(EVAL_BATCH_SIZE)
            )
            return torch.cat(list(batches))

    @cached_property
    def usual_distance(self) -> Tensor:
        """L2 distance of test digits to the nearest training image, (M,)."""
        assert self.train is not None
        assert self.test is not None
        real = self.test[self.test.evenly_spaced(NUM_REAL)].images
        return nearest(real.to(self.device), self.train[:].images.to(self.device))[0].cpu()

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.network.parameters(), torch.empty(0)).device

    @property
    def num_classes(self) -> int:
        """The number of classes that the network tells apart."""
        return int(self.recipe.get("num_classes", 10))

    @property
    def names(self) -> list[str]:
        """The names of the classes, or their numbers."""
        return list(self.recipe.get("classes") or map(str, range(self.num_classes)))

    @property
    def is_normalised(self) -> bool:
        """Whether the network has batch normalisation."""
        return is_normalised(self.network)

    def on_device(self) -> tuple[Tensor, Tensor]:
        """Images and labels on the network's device."""
        return self.images.to(self.device), self.labels.to(self.device)


def name_of(side: Subject, other: Subject) -> str:
    """What distinguishes a network from another: recipe, batch normalisation, another option, or its folder."""
    names = []
    recipe = side.run.get("recipe")
    if recipe is not None and other.run.get("recipe") not in (None, recipe):
        names.append(f"experiment {recipe}")
    kinds = [one.recipe.get("network") for one in (side, other)]
    if kinds[0] != kinds[1]:
        names.append(str(kinds[0]))
    elif not names and side.is_normalised != other.is_normalised:
        names.append("the network with batch norm" if side.is_normalised else "the network without batch norm")
    if not names:
        names = [f"{one['key']} {one['first']}" for one in differences(side.recipe, other.recipe)]
    if not names and side.checkpoint.parent == other.checkpoint.parent:
        names = [side.folder.name, side.checkpoint.stem]
    parent = f"{side.folder.parent.name}/" if side.folder.name == other.folder.name else ""
    return ", ".join(names) or parent + side.folder.name


def choose(
    cfg: DictConfig,
    overrides: list[str],
    *,
    needs_data: bool = True,
    trusted: Collection[str] = (),
    trusted_data: Collection[str] = (),
) -> list[Subject]:
    """The network that `ckpt_path` names, or the newest, with the images that `images` or `image` name.

    With `against` there are two, each the other's `other`. Data set and folder are those of the run, unless the command
    line names others, and are written into `cfg`; without `needs_data` none is read. `trusted` and `trusted_data` are
    the classes of networks and data outside this package that the command names.

    Raises:
        FileNotFoundError: There is no such run, checkpoint or picture.
        ValueError: The checkpoint or the picture is of another kind, an index is out of range, two networks cannot be
            compared, or an option has no effect on an analysis.
    """
    _refuse_what_has_no_effect(overrides, {f"data.{key}" for key in cfg.data if sources.is_own(cfg.data)})
    is_newest = cfg.ckpt_path in (None, locate.LAST)
    file = locate.newest() if is_newest else locate.find(cfg.ckpt_path, prefer_best=True)
    print(f"{'newest run: ' if is_newest else ''}{file}")
    own = None if cfg.image is None else own_pictures.read(cfg.image)
    cfg.ckpt_path = str(file)
    device = _device(cfg.trainer.accelerator)
    first = _of_checkpoint(file, device, trusted)
    second = None if cfg.against is None else another(cfg.against, first, trusted)
    first.dataset = dataset.settle(cfg, overrides, file, first.recipe.get("dataset"))
    if own is None:
        if needs_data:
            dataset.check_named(cfg.data, file, trusted_data)
            _look_at_data(cfg, first)
    else:
        first.read_train = partial(own_pictures.training_images, cfg.data, first.num_classes)
        _look_at_own(first, own, cfg.image)
    if second is None:
        return [first]
    for attribute in ("dataset", "images", "labels", "indices", "test", "read_train", "picture", "pictures"):
        setattr(second, attribute, getattr(first, attribute))
    if second.picture is not None:  # what each explains is its own answer
        second.labels = second.picture_probability.argmax()[None]
    first.other, second.other = second, first
    return [first, second]


def _of_checkpoint(file: Path, device: torch.device, trusted: Collection[str]) -> Subject:
    """A network with its record, without images."""
    content = checkpoint.read(file)
    run = read_json(file.parent.parent / "results.json")
    nothing = torch.empty(0, dtype=torch.long)
    network = checkpoint.network_of(content, file, trusted).to(device)
    return Subject(
        network=network,
        checkpoint=file,
        dataset="",
        images=torch.empty(0, 1, 28, 28),
        labels=nothing,
        indices=nothing,
        test=None,
        run=run,
        recipe={
            **checkpoint.recipe_of(content["hyper_parameters"]) | content.get("datamodule_hyper_parameters", {}),
            **{key: run[key] for key in ("precision", "averaged_weights") if key in run},
            "batchnorm": is_normalised(network),
            "epochs": run.get("epochs", content["epoch"] + 1),  # of the training, whichever epoch a hold-out chose
        },
    )


def _refuse_what_has_no_effect(overrides: list[str], own: Collection[object]) -> None:
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key.startswith(("data.", "trainer.", "network.")) and key not in {*HAVE_AN_EFFECT, *own}:
            raise ValueError(f"{key} has no effect on an analysis: leave it out")


def _look_at_own(subject: Subject, own: "Picture | list[own_pictures.Reading]", name: str) -> None:
    """Take the user's pictures; of a single one print the answer, and choose the predicted class for explanation."""
    if isinstance(own, list):
        subject.dataset, subject.pictures = "pictures", own
        return
    subject.dataset, subject.picture, subject.images = "picture", own, own.image
    probability = subject.picture_probability
    first, second = probability.topk(2).indices.tolist()
    says = [f"{subject.names[label]} (p {probability[label]:.3f})" for label in (first, second)]
    print(f"predicted {says[0]}, then {says[1]}")
    print(*(f"{name}: {note}" for note in own.notes), sep="\n")
    for doubt in own.doubts:
        warnings.warn(f"{name}: {doubt}", UserWarning, stacklevel=2)
    subject.labels, subject.indices = torch.tensor([first]), torch.tensor([-1])


def _look_at_data(cfg: DictConfig, subject: Subject) -> None:
    """Read the data set and choose the images."""
    read = dataset.open_set(cfg.data, subject.num_classes)
    subject.test, subject.read_train = read("test"), partial(read, "train")
    subject.indices = dataset.chosen(cfg.images, subject.test)
    subject.images, subject.labels = subject.test[subject.indices]


def another(path: str | Path, first: Subject, trusted: Collection[str], *, key: str = "against") -> Subject:
    """A network of the same task as the first, without images; `key` is the option that names it.

    Raises:
        FileNotFoundError: It does not exist.
        ValueError: It is not a checkpoint, or of another data set or other classes.
    """
    other = _of_checkpoint(locate.find(path, prefer_best=True, key=key), first.device, trusted)
    if other.num_classes != first.num_classes:
        raise ValueError(f"the networks have {first.num_classes} and {other.num_classes} classes: set {key}=")
    if first.recipe.get("classes") != other.recipe.get("classes"):
        raise ValueError(f"the two networks were trained on different classes, and cannot be compared: set {key}=")
    asked, theirs = first.recipe.get("dataset"), other.recipe.get("dataset")
    if None not in (asked, theirs) and asked != theirs:
        raise ValueError(f"one network was trained on {asked}, the other on {theirs}: set {key}= to one on {asked}")
    return other


def _device(accelerator: str) -> torch.device:
    if accelerator == "cpu":
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = False  # its ten bits of precision flip the signs of small gradients
    found = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return torch.device("cpu" if found.type == "mps" else found)  # MPS has no float64
