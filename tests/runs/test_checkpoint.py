"""Checkpoints: what loads, and what is refused with which message."""

import errno
import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from cnn_mnist.cli import entry
from cnn_mnist.network import CNN
from cnn_mnist.runs import checkpoint, checkpoint_io, run_folder


def saved(path: Path, network: CNN, **changes: object) -> Path:
    content = {
        "state_dict": {f"network.{key}": value for key, value in network.state_dict().items()},
        "hyper_parameters": {"batchnorm": network.batchnorm, "lr": 1e-3, "schedule": None}
        | ({} if network.kernel_size == 3 else {"kernel_size": network.kernel_size})
        | ({} if network.fc2.out_features == 10 else {"num_classes": network.fc2.out_features}),
        "global_step": 7,
        "epoch": 0,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content | changes, path)
    return path


@pytest.mark.parametrize(("batchnorm", "kernel_size"), [(False, 3), (True, 3), (False, 7)])
def test_the_architecture_comes_from_the_file(batchnorm: bool, kernel_size: int, tmp_path: Path) -> None:
    network = CNN(batchnorm, kernel_size).eval()
    images = torch.rand(3, 1, 28, 28)
    path = saved(tmp_path / "run" / "checkpoints" / "last.ckpt", network)
    for name in (path, str(path), tmp_path / "run"):
        loaded = checkpoint.load(name)
        assert not loaded.training
        assert loaded.batchnorm is batchnorm
        assert torch.equal(loaded(images), network(images))


class Payload:
    """A pickle that would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def changed(content: bytes, place: int) -> bytes:
    """The same bytes, one bit of one of them flipped."""
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def compressed(content: bytes) -> bytes:
    """The same archive, compressed: of a few bytes it could become many."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda good: b"", "is empty"),
        (lambda good: b"no checkpoint at all", "is not a checkpoint: it is no archive, but begins with b'no c'"),
        (lambda good: pickle.dumps({"state_dict": {}}), "is not a checkpoint: it is no archive"),
        (lambda good: good[: len(good) // 2], "is cut off, or damaged at its end"),
        (lambda good: changed(good, len(good) // 2), r"is damaged: .* does not have its checksum"),
        (compressed, "is not a checkpoint: what is in it is compressed"),
    ],
)
def test_each_kind_of_damage_has_its_sentence(damage: Callable[[bytes], bytes], words: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "bad.ckpt", CNN())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"bad.ckpt {words}"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (CNN().state_dict(), r"holds weights alone \(a bare state dict\)"),
        ([1, 2], "is not a checkpoint of a training run: it holds a list"),
        ({"epoch": 1}, "is not a checkpoint of a training run: it has no global_step, hyper_parameters, state_dict"),
    ],
)
def test_each_kind_of_other_content_has_its_sentence(content: object, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=f"bad.ckpt {words}"):
        checkpoint.load(tmp_path / "bad.ckpt")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state_dict": {"network.weight": torch.zeros(2)}}, "is a checkpoint of another kind of network"),
        ({"hyper_parameters": {"batchnorm": True}}, "is a checkpoint of another kind of network"),
        ({"hyper_parameters": {"batchnorm": "yes"}}, "is a checkpoint of another kind of network: batchnorm is yes"),
        (
            {"hyper_parameters": {"batchnorm": False, "kernel_size": 10**6 + 1}},
            "is a checkpoint of another kind of network: conv1.weight",
        ),
        (
            {"state_dict": {k: v / 0 for k, v in CNN().state_dict().items()}},
            "weights that are NaN or infinite: conv1.weight",
        ),
    ],
)
def test_each_kind_of_other_network_has_its_sentence(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"bad.ckpt .*{words}"):
        checkpoint.load(saved(tmp_path / "bad.ckpt", CNN(), **changes))


@pytest.mark.parametrize("is_archive", [True, False])
def test_a_program_is_refused_and_never_run(is_archive: bool, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    content = {"state_dict": {}, "hyper_parameters": {}, "global_step": 1, "epoch": 0, "extra": Payload(trace)}
    torch.save(content, tmp_path / "bad.ckpt", _use_new_zipfile_serialization=is_archive)
    words = "it holds a pickle which names getattr, and is not run" if is_archive else "it is no archive"
    with pytest.raises(ValueError, match=f"bad.ckpt is not a checkpoint: {words}"):
        checkpoint.load(tmp_path / "bad.ckpt")
    assert not trace.exists()
    torch.load(tmp_path / "bad.ckpt", weights_only=False)
    assert trace.exists()  # it is a program


@pytest.mark.parametrize("path", ["https://example.com/last.ckpt", "file:///last.ckpt", "s3://bucket/last.ckpt"])
def test_an_address_is_no_path(path: str) -> None:
    with pytest.raises(ValueError, match=f"{path} is an address"):
        checkpoint.load(path)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.ckpt", "."])
def test_what_does_not_exist_is_said(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no checkpoint at .* set ckpt_path="):
        checkpoint.load(tmp_path / name)


def test_a_checkpoint_outside_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    path = saved(tmp_path / "checkpoints" / "last.ckpt", CNN())
    cfg = OmegaConf.create({"ckpt_path": str(path)})
    with pytest.raises(ValueError, match=r"is not a run's folder: .*config.yaml is missing"):
        run_folder.open_run(cfg, tmp_path / "new", [], entry.check_recorded)


@pytest.mark.parametrize("what", ["write", "sync", "rename"])
def test_where_writing_fails_the_old_one_stays(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io, path = checkpoint_io.CheckpointFiles(), tmp_path / "last.ckpt"
    io.save_checkpoint({"epoch": 1}, path)
    before = path.read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = {"write": (Path, "write_bytes"), "sync": (os, "fsync"), "rename": (Path, "replace")}[what]
    with monkeypatch.context() as patch:
        patch.setattr(*place, fail)
        with pytest.raises(OSError, match=re.escape(f"No space left on device: '{path}'")):
            io.save_checkpoint({"epoch": 2}, path)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert path.read_bytes() == before
    io.save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 2}


def test_a_network_of_the_users_is_not_mistaken_for_the_reports() -> None:
    assert checkpoint.recipe_of({"batchnorm": True, "kernel_size": 3})["network"] == "CNN"
    own = checkpoint.recipe_of({"network": {"_target_": "mine.CNN", "lr": 7}, "lr": 0.1})
    assert (own["network"], own["lr"], own["network.lr"]) == ("mine.CNN", 0.1, 7)
