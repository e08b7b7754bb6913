"""Pictures of the user's own: one to explain, or several to classify."""

import os
import re
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from omegaconf import DictConfig

from cnn_mnist.cli import console
from cnn_mnist.data import sources
from cnn_mnist.data.batches import Images
from cnn_mnist.runs.files import shown

if TYPE_CHECKING:
    from cnn_mnist.data.picture import Picture

THUMBNAIL = 112  # pixels of the longer side of a picture on a contact sheet: four times those of an image


class Reading(NamedTuple):
    """One of several files: the picture, or why it could not be read."""

    file: Path
    picture: "Picture | None"
    reason: str = ""

    @property
    def name(self) -> str:
        """Its path as text, whatever bytes it is made of."""
        return os.fsencode(shown(self.file)).decode(errors="replace")


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
    from cnn_mnist.figures.canvas import reduced

    if not is_several(image):
        assert isinstance(image, str)
        return picture.read(image)
    found = []
    for file in console.track(_files(image, picture.SUFFIXES), "reading pictures"):
        try:
            whole = picture.read(file)
        except (OSError, ValueError) as error:  # also of a file that has vanished since it was listed
            reason = " ".join(str(error).split())
            found.append(Reading(file, None, reason.removeprefix(f"{file} ")))
        else:
            found.append(Reading(file, whole._replace(given=reduced(whole.given, THUMBNAIL))))
    if not any(one.picture for one in found):
        raise ValueError(f"none of {len(found)} pictures can be read; the first, {found[0].file}: {found[0].reason}")
    return found


def _files(image: str | Sequence[str], suffixes: Collection[str]) -> list[Path]:
    """The files of a list, and the pictures of each folder in it, by name: 2.png before 10.png."""
    found: list[Path] = []
    for place in [Path(name).expanduser() for name in ([image] if isinstance(image, str) else image)]:
        if place.is_dir():
            all_inside = list(place.iterdir())
            inside = [one for one in all_inside if one.suffix.lower() in suffixes and one.is_file()]
            skipped = len(all_inside) - len(inside)
            others = f": {skipped} other files and folders in it are not read" * bool(skipped)
            if not inside:
                raise ValueError(f"there is no picture in {place}{others}: set image= to a folder of PNG or JPEG files")
            if others:
                print(f"{place}{others}")
            found += sorted(inside, key=_in_order)
        elif place.is_file():
            found.append(place)
        else:
            raise FileNotFoundError(f"there is no picture at {place}: set image= to PNG or JPEG files, or a folder")
    return found


def _in_order(file: Path) -> list[tuple[int, str]]:
    """A name in pieces to sort by, numbers by their value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name)]


def training_images(data: DictConfig, num_classes: int) -> Images | None:
    """The network's training images if they are on this machine; nothing is downloaded for a picture."""
    if sources.is_own(data):
        return None
    root = Path(data.root).expanduser()
    try:
        if len(sources.classes(data.dataset, root)) != num_classes:
            return None
        return Images(*sources.read(data.dataset, root, "train"), num_classes)
    except (FileNotFoundError, ConnectionError):
        return None
    except (OSError, ValueError) as error:
        warnings.warn(f"the training images are left out: {error}", UserWarning, stacklevel=2)
        return None
