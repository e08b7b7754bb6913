"""Pictures of the user's own: one to explain, or several to classify."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from omegaconf import DictConfig

from cnn_mnist.cli import console
from cnn_mnist.data import sources
from cnn_mnist.data.batches import Images

if TYPE_CHECKING:
    from cnn_mnist.data.picture import Picture

SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".ico"}
THUMBNAIL = 160  # pixels of the longer side of a picture on a contact sheet


class Reading(NamedTuple):
    """One of several files: the picture, or why it could not be read."""

    file: Path
    picture: "Picture | None"
    reason: str = ""


def is_several(image: str | Sequence[str] | None) -> bool:
    """Whether `image` names several pictures: a list, or a folder."""
    return image is not None and (not isinstance(image, str) or Path(image).expanduser().is_dir())


def read(image: str | Sequence[str]) -> "Picture | list[Reading]":
    """Read the picture that `image` names, or every picture of a list or a folder.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The one picture, or none of several, can be read, or a folder holds no picture.
    """
    from cnn_mnist.data import picture  # imports scikit-image

    if not is_several(image):
        assert isinstance(image, str)
        return picture.read(image)
    found = []
    for file in console.track(_files(image), "reading pictures"):
        try:
            whole = picture.read(file)
        except (OSError, ValueError) as error:  # also of a file that has vanished since it was listed
            reason = " ".join(str(error).split())
            found.append(Reading(file, None, reason.removeprefix(f"{file} ")))
        else:
            every = -(-max(whole.given.shape[:2]) // THUMBNAIL)
            found.append(Reading(file, whole._replace(given=whole.given[::every, ::every].copy())))
    if not any(one.picture for one in found):
        raise ValueError(f"none of {len(found)} pictures can be read; the first, {found[0].file}: {found[0].reason}")
    return found


def _files(image: str | Sequence[str]) -> list[Path]:
    """The files of a list, and the pictures of each folder in it, by name."""
    found: list[Path] = []
    for place in [Path(name).expanduser() for name in ([image] if isinstance(image, str) else image)]:
        if place.is_dir():
            inside = sorted(one for one in place.iterdir() if one.suffix.lower() in SUFFIXES and one.is_file())
            if not inside:
                raise ValueError(f"there is no picture in {place}: set image= to a folder of PNG or JPEG files")
            found += inside
        elif place.is_file():
            found.append(place)
        else:
            raise FileNotFoundError(f"there is no picture at {place}: set image= to PNG or JPEG files, or a folder")
    return found


def training_images(data: DictConfig, num_classes: int) -> Images | None:
    """The network's training images if they are on this machine; nothing is downloaded for a picture."""
    if sources.is_own(data):
        return None
    try:
        return Images(*sources.read(data.dataset, Path(data.root).expanduser(), "train"), num_classes)
    except (OSError, ValueError):
        return None
