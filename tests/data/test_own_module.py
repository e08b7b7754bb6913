"""The user's own LightningDataModule: what is used of it, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from cnn_mnist.data import own_module
from tests.conftest import Command, Done

LABELS = torch.arange(60) % 3
IMAGES = torch.randint(256, (60, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Own(pl.LightningDataModule):
    """60 images of three classes, to be changed by `change`."""

    def __init__(self, change: Callable[[Tensor, Tensor], Any] = lambda images, labels: (images, labels)) -> None:
        super().__init__()
        self.change = change

    def train_dataloader(self) -> list[Any]:
        return [self.change(IMAGES[k : k + 20], LABELS[k : k + 20]) for k in (0, 20, 40)]


class WithVal(Own):
    def val_dataloader(self) -> list[Any]:
        return [self.change(IMAGES[:9].float() / 255, LABELS[:9])]


class WithTest(Own):
    classes = ("a", "b", "c")

    def test_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(IMAGES[:12], LABELS[:12]), 5)


class WithBoth(WithVal, WithTest):
    num_classes = 3


def test_batches_without_a_number_are_refused() -> None:
    class Endless(WithVal):
        def train_dataloader(self) -> Any:
            return iter(super().train_dataloader())

    with pytest.raises(ValueError, match="mine.Own: train_dataloader must have a length: object of typ"):
        own_module.OwnData(Endless(), "mine.Own").ready()


@pytest.mark.parametrize(
    ("kind", "num_val", "num_test", "val_name", "classes"),
    [(WithVal, 9, 9, "val", "012"), (WithTest, 12, 12, "test", "abc"), (WithBoth, 9, 12, "val", "abc")],
)
def test_parts_and_classes(kind: type[Own], num_val: int, num_test: int, val_name: str, classes: str) -> None:
    data = own_module.OwnData(kind(), "mine.Own").ready()
    assert (len(data.train), len(data.val), len(data.test)) == (60, num_val, num_test)
    assert data.val_name == val_name
    assert data.classes == tuple(classes)
    assert data.batch_size == 20
    assert torch.equal(data.train[:].images, IMAGES / 255)
    assert torch.equal(data.val[:].images, IMAGES[:num_val] / 255)


def test_training_takes_its_own_batches() -> None:
    data = own_module.OwnData(WithVal(), "mine.Own").ready()
    batch = data.on_after_batch_transfer(data.train_dataloader()[1], 0)
    assert torch.equal(batch.images, IMAGES[20:40].float() / 255)
    assert torch.equal(batch.labels, LABELS[20:40])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images, labels: images, "train_dataloader must yield (images, labels), got Tensor"),
        (lambda images, labels: {"images": images}, "must yield (images, labels), got dict"),
        (lambda images, labels: (images[:, 0], labels), "of the shape (B, 1, 28, 28), uint8 or float32 in [0, 1], got"),
        (lambda images, labels: (images.expand(-1, 3, -1, -1), labels), "got uint8 (20, 3, 28, 28) from 0 to 255"),
        (lambda images, labels: (images // 128, labels), "uint8 images are grey values of 0..255, got no more than 1"),
        (lambda images, labels: (images.float() / 100, labels), "got float32 (20, 1, 28, 28) from 0 to 2.55"),
        (lambda images, labels: (images.float() * torch.nan, labels), "from nan to nan"),
        (lambda images, labels: (images, labels.float()), "whole numbers as labels, one an image"),
        (lambda images, labels: (images, labels[:3]), "whole numbers as labels, one an image"),
        (lambda images, labels: (images, labels - 1), "labels must be from 0 to the number of classes - 1"),
        (lambda images, labels: (images, labels * 0), "there must be two classes at least"),
    ],
)
def test_what_is_no_image_and_label_is_refused(change: Callable[[Tensor, Tensor], Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        own_module.OwnData(WithVal(change), "mine.Own").ready()
    assert message in str(raised.value)
    assert str(raised.value).startswith("mine.Own")


def test_a_label_beyond_the_named_classes_is_refused() -> None:
    kind = type("Fewer", (WithTest,), {"classes": ("a", "b")})
    with pytest.raises(ValueError, match="got labels from 0 to 2 for 2 classes"):
        own_module.OwnData(kind(), "mine.Own").ready()


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "nowhere.Data"}, "data nowhere.Data cannot be imported: ModuleNotFoundError"),
        ({"_target_": f"{__name__}.Own"}, "needs a train_dataloader, and a val_dataloader or a test_dataloader"),
        ({"_target_": "torch.nn.Identity"}, "must be a LightningDataModule, got Identity"),
    ],
)
def test_what_is_no_data_module_is_refused(node: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        own_module.make(node)


@pytest.mark.parametrize(
    "hidden", ["${oc.create:{_target_:os.mkdir,path:planted}}", {"_target_": "os.mkdir", "path": "planted"}]
)
@pytest.mark.parametrize("target", ["cnn_mnist.data.datamodule.DataModule", "mine.Data"])
def test_a_record_alone_names_no_code(hidden: object, target: str, run: Done, analyze: Command, tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "digits-paper" / "planted"
    shutil.copytree(run.folder, folder)
    record = yaml.safe_load((folder / "config.yaml").read_text())
    record["data"] = {"_target_": target, "root": hidden}
    (folder / "config.yaml").write_text(yaml.safe_dump(record))
    done = analyze("analysis=predictions", f"ckpt_path={folder}", cwd=tmp_path)
    assert not (tmp_path / "planted").exists()
    assert "Traceback" not in done.err
