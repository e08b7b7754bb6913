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
BOX, SIZE = 20, 28  # MNIST fits a digit into 20x20 and centres its mass in 28x28
CENTRE = 14.0  # index of the centre of mass: over MNIST's training images its mean is 14.00, give or take half a pixel
AS_IT_IS = (17, 21)  # pixels of the longer side of ink that is not scaled: it has MNIST's size already
FULL = (255, 4095, 65535, 2**31 - 1)  # white of 8, 12, 16 and 32 bits

SUFFIXES = frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS)

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601

Grey = NDArray[np.float32]


class Refused(ValueError):
    """A readable picture that is refused."""


class Picture(NamedTuple):
    """A picture and how it was read.

    Attributes:
        image: What the network sees, float32 (1, 1, 28, 28) in [0, 1], ink bright on a dark ground.
        notes: What was done to it.
        doubts: Why it may have been read wrongly.
        given: The picture as given, RGB (H, W, 3) in [0, 1].
        box: Where in it the ink is: top, left, bottom, right.
    """

    image: Tensor
    notes: list[str]
    doubts: list[str]
    given: Grey
    box: ink.Box


def read(path: str | Path) -> Picture:
    """Read a picture and make it look like MNIST's: bright ink alone, fitted into 20x20, its mass centred in 28x28.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not a picture, or animated, blank or huge.

    Source: LeCun, Cortes and Burges, "The MNIST database", for how its digits were framed.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no picture at {path}: set image= to a PNG or JPEG file")
    given, notes = decoded(path)
    try:
        found = ink.find(given)
    except ink.Blank as error:
        raise ValueError(f"{path} is blank: nothing in it stands out from its paper") from error
    image, place = framed(found.ink)
    return Picture(torch.from_numpy(image)[None, None], [*notes, *found.notes, place], found.doubts, given, found.box)


def decoded(path: Path) -> tuple[Grey, list[str]]:
    """A picture file as RGB (H, W, 3) in [0, 1], turned as its camera says, and what was done to it.

    Raises:
        ValueError: It is no picture that can be read.
    """
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
                if picture.mode == "F":
                    raise Refused(f"{path} has brightness in floating point: save it with 8 or 16 bits")
                if picture.mode.startswith("I"):  # more than 8 bits: Pillow's own conversion would cut them off
                    grey = np.asarray(picture).astype(np.float64)
                    white = next(full for full in FULL if grey.max() <= full)
                    return np.repeat((grey / white).clip(0, 1).astype(np.float32)[..., None], 3, 2), []
                if picture.has_transparency_data:
                    return _on_paper(_scaled(picture.convert("RGBA")))
                return _scaled(picture.convert("RGB")), []
        except Image.DecompressionBombError as error:
            raise ValueError(f"{path} has too many pixels: at most {MAX_PIXELS:,} are read") from error
        except Refused:
            raise
        except Exception as error:  # a malformed file can break Pillow in any way
            reason = str(error) or type(error).__name__
            if isinstance(error, UnidentifiedImageError):
                reason = f"it is no picture in a format that is read: {', '.join(FORMATS)}"
            raise ValueError(f"{path} cannot be read as a picture ({reason})") from error


def grey(path: Path) -> Grey:
    """The brightness (H, W) in [0, 1] of a picture file, in steps of 8 bits.

    Raises:
        ValueError: It is no picture that can be read.
    """
    brightness: Grey = (decoded(path)[0] @ LUMA * 255).round() / np.float32(255)
    return brightness


def _scaled(picture: Image.Image) -> Grey:
    return np.asarray(picture).astype(np.float32) / np.float32(255)


def _on_paper(picture: Grey) -> tuple[Grey, list[str]]:
    """A picture (H, W, 4) with transparent parts laid on paper: its own colour, or what its ink stands out from."""
    colour, alpha = picture[..., :3], picture[..., 3:]
    if alpha.min() == 1:
        return colour, []
    seen = colour[alpha[..., 0] > 0.5 * alpha.max()]
    if not len(seen):  # nothing is visible, whatever colours are hidden
        return np.ones_like(colour), []
    if len(seen) > alpha.size / 2:  # the paper is opaque, and something around it is not
        paper, name = np.median(seen, 0), "its own"
    else:
        is_bright = seen.mean() > 0.5
        paper, name = np.full(3, 0.0 if is_bright else 1.0), "black" if is_bright else "white"
    return (colour * alpha + paper.astype(np.float32) * (1 - alpha)).astype(np.float32), [
        f"transparent parts laid on {name} paper"
    ]


def framed(drawn: Grey) -> tuple[Grey, str]:
    """Ink (H, W) in [0, 1] scaled into 20x20, with its centre of mass in the centre of 28x28, and what was done."""
    height, width = drawn.shape
    digit = drawn
    if not AS_IT_IS[0] <= max(drawn.shape) <= AS_IT_IS[1]:
        scale = BOX / max(drawn.shape)
        size = [max(1, round(side * scale)) for side in drawn.shape]
        digit = transform.resize(drawn, size, order=1, anti_aliasing=scale < 1).astype(np.float32)
        strokes = digit[digit > 0.2]
        digit = (digit / (np.quantile(strokes, 0.9) if strokes.size else digit.max())).clip(0, 1)
    image = np.zeros((SIZE, SIZE), np.float32)
    middle = ndimage.center_of_mass(digit)
    top, left = (int(np.clip(round(CENTRE - at), 0, SIZE - side)) for at, side in zip(middle, digit.shape, strict=True))
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    how = "kept" if digit is drawn else f"scaled to {digit.shape[1]} x {digit.shape[0]}"
    return image, f"{width} x {height} pixels of ink {how} and centred by their mass"
