"""Checkpoints: what loads, what is refused, each with its own sentence."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from cnn_mnist import checkpoint
from cnn_mnist.network import CNN


def saved(path: Path, network: CNN, **changes: object) -> Path:
    content = {
        "state_dict": {f"network.{key}": value for key, value in network.state_dict().items()},
        "hyper_parameters": {"batchnorm": network.batchnorm, "lr": 1e-3, "schedule": None}
        | ({} if network.kernel_size == 3 else {"kernel_size": network.kernel_size}),
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


def test_what_is_not_a_checkpoint_is_refused_and_never_run(tmp_path: Path) -> None:
    good = saved(tmp_path / "good.ckpt", CNN()).read_bytes()
    middle = len(good) // 2
    files = {
        "empty": b"",
        "text": b"not a checkpoint at all",
        "truncated": good[:middle],
        "flipped": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
    }
    words = {"flipped": "damaged", "empty": "not a whole", "text": "not a whole", "truncated": "not a whole"}
    for name, content in files.items():
        path = tmp_path / f"{name}.ckpt"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.ckpt is {words[name]}"):
            checkpoint.load(path)
    torch.save(CNN().state_dict(), tmp_path / "bare.ckpt")
    with pytest.raises(ValueError, match="bare.ckpt is not a checkpoint of a training run"):
        checkpoint.load(tmp_path / "bare.ckpt")
    with pytest.raises(ValueError, match="another kind of network"):
        checkpoint.load(saved(tmp_path / "foreign.ckpt", CNN(), state_dict={"network.weight": torch.zeros(2)}))
    trace = tmp_path / "trace"
    with pytest.raises(ValueError, match="payload.ckpt is not a whole checkpoint"):
        checkpoint.load(saved(tmp_path / "payload.ckpt", CNN(), extra=Payload(trace)))
    assert not trace.exists()


@pytest.mark.parametrize("name", ["nowhere", "nowhere.ckpt", "."])
def test_what_does_not_exist_is_said(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no checkpoint at .* set ckpt_path="):
        checkpoint.load(tmp_path / name)


def test_a_checkpoint_outside_a_run_cannot_be_gone_on_with(tmp_path: Path) -> None:
    path = saved(tmp_path / "checkpoints" / "last.ckpt", CNN())
    cfg = OmegaConf.create({"ckpt_path": str(path)})
    with pytest.raises(ValueError, match=r"does not lie in a run's folder: .*config.yaml is missing"):
        checkpoint.open_run(cfg, tmp_path / "new", [])
