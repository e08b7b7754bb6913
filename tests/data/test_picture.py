"""Pictures of the user's own: MNIST's digits are recovered, and unreadable files are reported."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnn_mnist.data import picture
from cnn_mnist.data.picture import read


@pytest.fixture
def digit() -> np.ndarray:
    """A seven in 28x28 as MNIST frames it, uint8."""
    image = np.zeros((28, 28), np.uint8)
    image[4:7, 8:20] = 255
    image[4, 8] = 13  # fainter than paper's grain
    for row in range(7, 24):
        image[row, 19 - (row - 4) // 2 : 22 - (row - 4) // 2] = 220
    centre = [np.average(np.arange(28), weights=image.sum(axis, dtype=int)) for axis in (1, 0)]
    return np.roll(image, [round(13.5 - middle) for middle in centre], (0, 1))


def saved(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def test_an_image_of_mnists_kind_is_taken_as_it_is(digit: np.ndarray, tmp_path: Path) -> None:
    found = read(saved(tmp_path / "digit.png", digit))
    assert found.image.shape == (1, 1, 28, 28)
    assert found.image.dtype == torch.float32
    np.testing.assert_allclose(found.image[0, 0].numpy() * 255, digit, atol=0.01)
    assert "neither scaled nor moved" in found.notes[-1]


@pytest.mark.parametrize(
    "how",
    ["white paper", "colour", "palette", "transparent", "16 bits", "photograph", "dim", "white ink", "rotated", "jpeg"],
)
def test_a_scan_of_it_comes_to_the_same(how: str, digit: np.ndarray, tmp_path: Path) -> None:
    big = np.zeros((640, 480), np.uint8)  # the digit ten times as large, far off the middle
    big[30:310, 150:430] = digit.repeat(10, 0).repeat(10, 1)
    path, words = tmp_path / "scan.png", "scaled to"
    if how == "white paper":
        saved(path, 255 - big)
        words = "inverted: its ink is darker"
    elif how in ("colour", "palette"):
        saved(path, 255 - big, "RGB" if how == "colour" else "P")
        words = "converted to grey"
    elif how == "transparent":
        Image.merge("LA", (Image.new("L", (480, 640)), Image.fromarray(big))).save(path)
        words = "white paper"
    elif how == "16 bits":
        saved(path, (big.astype(np.uint16) * 257))
    elif how == "photograph":
        grain = np.random.default_rng(0).normal(200, 3, big.shape)
        saved(path, (grain * (1 - big / 255 * 0.8)).astype(np.uint8))
        words = "grey taken as empty paper"
    elif how == "dim":
        saved(path, (115 - big * 0.35).astype(np.uint8))
        words = "contrast raised: its ink differs from its paper by 35%"
    elif how == "white ink":
        Image.merge("LA", (Image.new("L", (480, 640), 255), Image.fromarray(big))).save(path)
        words = "transparent parts laid on black paper"
    elif how == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6  # lay on its side, to be turned by 90 degrees
        saved(path, np.rot90(big).copy(), exif=exif)
    else:
        path = saved(tmp_path / "scan.jpg", 255 - big, "RGB", quality=90)
    found = read(path)
    assert any(words in note for note in found.notes)
    ink, expected = found.image[0, 0].numpy(), digit / 255
    assert np.corrcoef(ink.flat, expected.flat)[0, 1] > 0.93
    assert max(np.ptp(np.nonzero(ink)[axis]) + 1 for axis in (0, 1)) == 20
    rows, columns = (np.average(np.arange(28), weights=ink.sum(axis)) for axis in (1, 0))
    assert abs(rows - 13.5) < 0.6
    assert abs(columns - 13.5) < 0.6


def test_what_cannot_be_read_says_so(digit: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str, content: bytes, words: str, error: type[Exception] = ValueError) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(error, match=words):
            read(path)

    whole = io.BytesIO()
    Image.fromarray(digit).save(whole, "PNG")
    refused(
        "text.png",
        b"not a picture",
        "text.png cannot be read as a picture (it is no picture in a format".replace("(", r"\("),
    )
    refused(
        "float.tiff", saved(tmp_path / "f.tiff", digit / np.float32(255)).read_bytes(), "brightness in floating point"
    )
    refused("empty.png", b"", "it is no picture")
    refused("cut.png", whole.getvalue()[:-40], "cut.png cannot be read as a picture")
    frames = [Image.fromarray(frame) for frame in (digit, digit.T, digit[::-1])]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    refused("moving.gif", (tmp_path / "moving.gif").read_bytes(), "animated: save one of its 3 frames")
    refused("blank.png", saved(tmp_path / "b.png", np.full((50, 50), 255, np.uint8)).read_bytes(), "is blank")
    monkeypatch.setattr(picture, "MAX_PIXELS", 28 * 28 - 1)
    refused("huge.png", whole.getvalue(), "has 28 x 28 pixels: at most 783 are read")
    with pytest.raises(FileNotFoundError, match="there is no picture at .*nowhere.png: set image="):
        read(tmp_path / "nowhere.png")


def huge(path: Path) -> None:
    """A picture that says it has 3.6 gigapixels."""
    size = struct.pack(">II", 60_000, 60_000)
    content = io.BytesIO()
    Image.new("1", (8, 8)).save(content, "PNG")
    small = content.getvalue()
    header = b"IHDR" + size + small[24:29]
    path.write_bytes(small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:])


def test_a_huge_picture_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    huge(bomb)
    with pytest.raises(ValueError, match="bomb.png has too many pixels: at most 25,000,000 are read"):
        read(bomb)
