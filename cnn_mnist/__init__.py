"""A laboratory for small image classifiers: train them, explain them, attack them, defend them.

Importing the package imports no torch; each of the functions below does at its first call.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from torch import Tensor, nn

__all__ = ["__version__", "load_images", "load_network", "load_picture"]


def load_network(path: "str | Path", *, trusted: "Collection[str]" = ()) -> "nn.Module":
    """The network of a training run, in eval mode, on the CPU.

    Args:
        path: A run's folder, or a .ckpt file. Of a folder, the checkpoint chosen by a hold-out, otherwise the last.
        trusted: Names of classes, such as `mine.Net`, that may be imported beside those of this package.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: The file is damaged or not a checkpoint, or its network is neither of this package nor trusted.
    """
    from cnn_mnist.runs import checkpoint

    return checkpoint.load(path, trusted=trusted)


def load_images(name: str = "mnist", split: str = "test", root: "str | Path" = "data") -> "tuple[Tensor, Tensor]":
    """Images float32 (N, 1, 28, 28) in [0, 1] and labels int64 (N,) of a data set; missing files are downloaded.

    Args:
        name: `mnist`, `fashion_mnist`, `kmnist`, `digits`, `emnist_letters`, `emnist_balanced`, `qmnist`, `usps`, `npz`
            or `image_folder`.
        split: `train` or `test`.
        root: Folder of the files, as `data.root`; of `npz` the file.

    Raises:
        ConnectionError: A file is missing and cannot be downloaded.
        ValueError: There is no such data set or split, or a file is damaged.
    """
    from pathlib import Path

    from cnn_mnist.data import sources
    from cnn_mnist.data.batches import Images

    if name not in sources.ALL:
        raise ValueError(f"name must be {', '.join(sources.ALL)}, got {name}")
    if split not in sources.PARTS:
        raise ValueError(f"split must be train or test, got {split}")
    return Images(*sources.load(name, Path(root).expanduser(), split))[:]


def load_picture(path: "str | Path") -> "Tensor":
    """Read a photograph, scan or drawing of a digit as an image like MNIST's, float32 (1, 1, 28, 28) in [0, 1].

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not a picture, or animated, blank or huge.
    """
    from cnn_mnist.data import picture

    return picture.read(path).image


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("cnn-mnist")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
