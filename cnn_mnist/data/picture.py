"""Read a picture of the user's own as an image like MNIST's."""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage
from skimage import transform
from torch import Tensor

from cnn_mnist.data import ink

MAX_PIXELS = 25_000_000
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO")  # none that runs a program, as EPS does
CENTRE = 14.0
BOX, SIZE = 20, 28  # MNIST fits a digit into 20x20 and centres its mass in 28x28


class Refused(ValueError):
    """A readable picture that is refused."""


class Picture(NamedTuple):
    """`image` float32 (1, 1, 28, 28) in [0, 1], ink bright on a dark ground; `notes`: what was done to it."""

    image: Tensor
    notes: list[str]


def of_array(picture: NDArray[np.float32]) -> Picture:
    """A picture (H, W, 3), RGB in [0, 1], made to look like MNIST's."""
    found = ink.find(picture)
    return Picture(torch.from_numpy(framed(found.ink))[None, None], found.doubts)


def framed(drawn: NDArray[np.float32]) -> NDArray[np.float32]:
    """Ink (H, W) in [0, 1] scaled into 20x20, with its centre of mass in the centre of 28x28."""
    scale = BOX / max(drawn.shape)
    scale = 1.0 if 0.9 < scale < 1.2 else scale  # of MNIST's size already
    size = [max(1, round(side * scale)) for side in drawn.shape]
    digit = transform.resize(drawn, size, order=1, anti_aliasing=scale < 1).astype(np.float32) if scale != 1 else drawn
    if scale != 1:
        full = np.quantile(digit[digit > 0.2], 0.9) if (digit > 0.2).any() else digit.max()
        digit = (digit / full).clip(0, 1)
    image = np.zeros((SIZE, SIZE), np.float32)
    middle = ndimage.center_of_mass(digit)
    top, left = (
        int(np.clip(round(CENTRE - at), 0, SIZE - side)) for at, side in zip(middle, digit.shape, strict=True)
    )
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return image


def read(path: str | Path) -> Picture:
    """Read a picture and make it look like MNIST's: grey, bright ink, fitted into 20x20, its mass centred.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not a picture, or animated, blank or huge.

    Source: LeCun, Cortes and Burges, "The MNIST database", for how its digits were framed.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no picture at {path}: set image= to a PNG or JPEG file")
    grey, notes = brightness(path)
    paper = float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))
    if paper - grey.min() > grey.max() - paper:  # what differs most from the border is darker than it
        grey, paper = 1 - grey, 1 - paper
        notes.append("inverted: its ink is darker than its paper")
    ink = (grey - paper).clip(0)  # noqa
    if ink.max() < 0.1:
        raise ValueError(f"{path} is blank: nothing in it differs from its border by a tenth of the grey scale")
    if ink.max() < 0.98:
        notes.append(f"contrast raised: its ink differs from its paper by {ink.max():.0%} of the grey scale")
    ink = (ink / ink.max()).astype(np.float32)
    if paper > 0.02:
        notes.append(f"its ground of {paper:.0%} grey taken as empty paper")
    image, place = _framed(ink)
    return Picture(torch.from_numpy(image)[None, None], [*notes, place])


def brightness(path: Path) -> tuple[NDArray[np.float32], list[str]]:
    """The picture's brightness (H, W) in [0, 1]."""
    notes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own warning of huge pictures: the limit below is stricter
        try:
            with Image.open(path, formats=FORMATS) as opened:
                width, height = opened.size
                if width * height > MAX_PIXELS:
                    raise Refused(f"{path} has {width:,} x {height:,} pixels: at most {MAX_PIXELS:,} are read")
                num_frames = getattr(opened, "n_frames", 1)
                if num_frames > 1 and opened.format != "MPO":  # a photograph with its small copy
                    raise Refused(f"{path} is animated: save one of its {num_frames} frames as a picture")
                picture = ImageOps.exif_transpose(opened)
                if picture.has_transparency_data:
                    picture = picture.convert("RGBA")
                    opaque = np.asarray(picture)[..., :3][np.asarray(picture)[..., 3] > 127]
                    ground = "black" if opaque.size and opaque.mean() > 127 else "white"
                    picture = Image.alpha_composite(Image.new("RGBA", picture.size, ground), picture)
                    notes.append(f"transparent parts laid on {ground} paper")
                if picture.mode == "F":
                    raise Refused(f"{path} has brightness in floating point: save it with 8 or 16 bits")
                if picture.mode.startswith("I"):  # 16 bits: Pillow's own conversion would cut them off
                    grey = np.asarray(picture, np.float32) / 65535
                else:
                    if picture.mode not in ("L", "1"):
                        notes.append("converted to grey")
                    grey = np.asarray(picture.convert("L"), np.float32) / 255
        except Image.DecompressionBombError as error:
            raise ValueError(f"{path} has too many pixels: at most {MAX_PIXELS:,} are read") from error
        except Refused:
            raise
        except Exception as error:  # a malformed file can break Pillow in any way
            reason = str(error) or type(error).__name__
            if isinstance(error, UnidentifiedImageError):
                reason = f"it is no picture in a format that is read: {', '.join(FORMATS)}"
            raise ValueError(f"{path} cannot be read as a picture ({reason})") from error
    return grey.clip(0, 1), notes


def _framed(ink: NDArray[np.float32]) -> tuple[NDArray[np.float32], str]:
    """Ink (H, W) cut out, scaled into 20x20 and set with its centre of mass in the centre of 28x28."""
    is_ink = ink >= 0.1  # below: the paper's grain
    rows, columns = np.flatnonzero(is_ink.any(1)), np.flatnonzero(is_ink.any(0))
    cut = (ink * is_ink)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if ink.shape == (SIZE, SIZE) and max(cut.shape) <= BOX:
        return ink, "28x28 already: neither scaled nor moved"
    scale = BOX / max(cut.shape)
    height, width = (max(1, round(side * scale)) for side in cut.shape)
    digit = np.asarray(
        Image.fromarray(cut).resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    )
    digit = (digit / digit.max()).clip(0, 1)
    mass = digit.sum()
    centre = (digit.sum(1) @ np.arange(height) / mass, digit.sum(0) @ np.arange(width) / mass)
    top, left = (
        int(np.clip(round((SIZE - 1) / 2 - middle), 0, SIZE - side))
        for middle, side in zip(centre, (height, width), strict=True)
    )
    image = np.zeros((SIZE, SIZE), np.float32)
    image[top : top + height, left : left + width] = digit
    return (
        image,
        f"{cut.shape[1]} x {cut.shape[0]} pixels of ink scaled to {width} x {height} and centred by their mass",
    )
