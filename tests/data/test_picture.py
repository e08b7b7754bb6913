"""Pictures of the user's own: MNIST's digits are recovered, and unreadable files are reported."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnn_mnist import load_images
from cnn_mnist.data import picture
from cnn_mnist.data.digits import digits
from cnn_mnist.data.picture import CENTRE, read
from tests.data import paper


@pytest.fixture
def digit() -> np.ndarray:
    """A seven in 28x28 as MNIST frames it, uint8."""
    image = np.zeros((28, 28), np.uint8)
    image[4:7, 8:20] = 255
    image[4, 8] = 13  # fainter than paper's grain
    for row in range(7, 24):
        image[row, 19 - (row - 4) // 2 : 22 - (row - 4) // 2] = 220
    centre = [np.average(np.arange(28), weights=image.sum(axis, dtype=int)) for axis in (1, 0)]
    return np.roll(image, [round(14 - middle) for middle in centre], (0, 1))


def saved(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def test_an_image_of_mnists_kind_is_taken_as_it_is(digit: np.ndarray, tmp_path: Path) -> None:
    found = read(saved(tmp_path / "digit.png", digit))
    assert found.image.shape == (1, 1, 28, 28)
    assert found.image.dtype == torch.float32
    np.testing.assert_allclose(found.image[0, 0].numpy() * 255, digit, atol=0.01)
    assert "of ink kept and centred" in found.notes[-1]
    assert found.doubts == []


def on_a_page(digit: np.ndarray) -> np.ndarray:
    """The digit ten times as large, far off the middle, uint8 (640, 480)."""
    page = np.zeros((640, 480), np.uint8)
    page[30:310, 150:430] = digit.repeat(10, 0).repeat(10, 1)
    return page


def transparent(page: np.ndarray, ink: int) -> Image.Image:
    """Ink of one grey on nothing."""
    return Image.merge("LA", (Image.new("L", (480, 640), ink), Image.fromarray(page)))


def on_an_opaque_sheet(page: np.ndarray) -> Image.Image:
    """A white sheet with ink, and nothing around it; what is transparent is black, as some programs leave it."""
    alpha = np.zeros((800, 600), np.uint8)
    alpha[80:720, 60:540] = 255
    sheet = np.zeros((800, 600), np.uint8)
    sheet[80:720, 60:540] = 255 - page
    return Image.merge("LA", (Image.fromarray(sheet), Image.fromarray(alpha)))


def turned(page: np.ndarray, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lay on its side, to be turned by 90 degrees
    Image.fromarray(np.rot90(page).copy()).save(path, exif=exif)


WAYS = {
    "white paper": lambda page, path: Image.fromarray(255 - page).save(path),
    "white on black": lambda page, path: Image.fromarray(page).save(path),
    "colour": lambda page, path: Image.fromarray(255 - page).convert("RGB").save(path),
    "palette": lambda page, path: Image.fromarray(255 - page).convert("P").save(path),
    "black and white": lambda page, path: Image.fromarray(255 - page).convert("1", dither=Image.Dither.NONE).save(path),
    "CMYK": lambda page, path: Image.fromarray(255 - page).convert("CMYK").save(path.with_suffix(".tiff")),
    "transparent": lambda page, path: transparent(page, 0).save(path),
    "white ink": lambda page, path: transparent(page, 255).save(path),
    "opaque sheet": lambda page, path: on_an_opaque_sheet(page).save(path),
    "16 bits": lambda page, path: Image.fromarray(page.astype(np.uint16) * 257).save(path),
    "12 bits in 16": lambda page, path: Image.fromarray(4095 - page.astype(np.uint16) * 16).save(path),
    "32 bits": lambda page, path: Image.fromarray(page.astype(np.int32) * 8_000_000).save(path.with_suffix(".tiff")),
    "dim": lambda page, path: Image.fromarray((115 - page * 0.35).astype(np.uint8)).save(path),
    "turned": turned,
    "jpeg": lambda page, path: Image.fromarray(255 - page).convert("RGB").save(path.with_suffix(".jpg"), quality=90),
}


@pytest.mark.parametrize("how", WAYS)
def test_a_scan_of_it_comes_to_the_same(how: str, digit: np.ndarray, tmp_path: Path) -> None:
    WAYS[how](on_a_page(digit), tmp_path / "scan.png")
    found = read(next(tmp_path.iterdir()))
    assert found.doubts == []
    ink, expected = found.image[0, 0].numpy(), digit / 255
    assert np.corrcoef(ink.flat, expected.flat)[0, 1] > 0.93
    assert max(np.ptp(np.nonzero(ink > 0.1)[axis]) + 1 for axis in (0, 1)) in (19, 20)
    rows, columns = (np.average(np.arange(28), weights=ink.sum(axis)) for axis in (1, 0))
    assert abs(rows - 14) < 0.6
    assert abs(columns - 14) < 0.6


@pytest.fixture(scope="module")
def drawings() -> np.ndarray:
    """Four of scikit-learn's digits, framed like MNIST's: (4, 28, 28) in [0, 1]."""
    images, labels = digits()["test"]
    return np.stack([images[labels == label][0, 0].numpy() / 255 for label in (2, 3, 5, 7)])


def on_paper(kind: str, drawings: np.ndarray, strength: int, folder: Path) -> list[np.ndarray]:
    """What is read of each drawing on a page of a kind."""
    found = []
    for seed, drawing in enumerate(drawings):
        Image.fromarray(paper.picture(kind, drawing, strength, seed)).save(folder / "page.png")
        found.append(read(folder / "page.png").image.numpy().ravel())
    return found


@pytest.fixture(scope="module")
def clean(drawings: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    return on_paper("clean", drawings, 0, tmp_path_factory.mktemp("clean"))


@pytest.mark.parametrize("kind", paper.KINDS)
def test_it_is_found_on_paper_of_any_kind(
    kind: str, drawings: np.ndarray, clean: list[np.ndarray], tmp_path: Path
) -> None:
    strongest = on_paper(kind, drawings, 2, tmp_path)
    likeness = [np.corrcoef(*pair)[0, 1] for pair in zip(clean, strongest, strict=True)]
    assert np.median(likeness) > {"thin": 0.4, "thick": 0.7}.get(kind, 0.9)  # a thin stroke may lie beside a thick one


def test_clean_pages_raise_no_doubts(drawings: np.ndarray, tmp_path: Path) -> None:
    for seed in range(24):
        Image.fromarray(paper.picture("clean", drawings[seed % 4], seed % 3, seed)).save(tmp_path / "page.png")
        assert read(tmp_path / "page.png").doubts == []


@pytest.mark.parametrize("kind", ["clean", "uneven", "shadow", "vignette", "grain", "ruled", "squared"])
def test_a_page_without_a_digit_is_refused(kind: str, tmp_path: Path) -> None:
    for seed in range(3):
        Image.fromarray(paper.picture(kind, np.zeros((28, 28)), 1, seed)).save(tmp_path / "page.png")
        with pytest.raises(ValueError, match="is blank"):
            read(tmp_path / "page.png")


@pytest.mark.parametrize("alpha", [0, 100])
def test_only_what_is_visible_is_read(alpha: int, digit: np.ndarray, tmp_path: Path) -> None:
    page = on_a_page(digit)
    hidden = Image.merge(
        "LA", (Image.fromarray(255 - page), Image.fromarray(np.where(page > 0, alpha, 0).astype(np.uint8)))
    )
    hidden.save(tmp_path / "page.png")
    if not alpha:
        with pytest.raises(ValueError, match="is blank"):
            read(tmp_path / "page.png")
    else:
        assert np.corrcoef(read(tmp_path / "page.png").image.numpy().ravel(), digit.ravel())[0, 1] > 0.8


def test_a_hard_shadow_alone_is_refused_or_doubted(tmp_path: Path) -> None:
    for seed in range(5):
        Image.fromarray(paper.picture("shadow", np.zeros((28, 28)), 2, seed)).save(tmp_path / "page.png")
        try:
            assert read(tmp_path / "page.png").doubts
        except ValueError as error:
            assert "is blank" in str(error)  # noqa: PT017


def test_two_digits_and_a_cut_one_raise_doubts(drawings: np.ndarray, tmp_path: Path) -> None:
    pages = [paper.picture("clean", drawing, 1, 0)[:, 100:360] for drawing in drawings[:2]]
    Image.fromarray(np.concatenate(pages, 1)).save(tmp_path / "two.png")
    assert any("several digits" in doubt for doubt in read(tmp_path / "two.png").doubts)
    page = paper.picture("clean", drawings[2], 0, 0)
    rows = np.flatnonzero((page < 100).any((1, 2)))
    Image.fromarray(page[(rows[0] + rows[-1]) // 2 :]).save(tmp_path / "cut.png")
    assert any("part of it may be cut off" in doubt for doubt in read(tmp_path / "cut.png").doubts)


@pytest.mark.mnist
def test_centres_of_mass_are_mnists(mnist_root: Path) -> None:
    images, _ = load_images("mnist", "train", str(mnist_root))
    place = torch.arange(28.0)
    for axis in (2, 3):
        mass = images.sum(axis)[:, 0]
        assert ((mass @ place) / mass.sum(1)).mean() == pytest.approx(CENTRE, abs=0.02)


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
