"""The data module: images, their order, damaged files and failing downloads."""

import gzip
import hashlib
import http.server
import shutil
import socket
import struct
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from torchvision import datasets

from cnn_mnist import load_images
from cnn_mnist.data import sources
from cnn_mnist.data.batches import Shuffled
from cnn_mnist.data.datamodule import DataModule, FallbackWarning

NAMES = list(sources.MD5["mnist"])


def idx(array: torch.Tensor) -> bytes:
    """A packed IDX file of a uint8 array."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.numpy().tobytes(), mtime=0)


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `served` with four small files in MNIST's format, as if they were MNIST's own."""
    generator = torch.Generator().manual_seed(0)
    folder = tmp_path / "served"
    folder.mkdir()
    checksums = {}
    for name in NAMES:
        num_images = 200 if name.startswith("train") else 50
        shape = (num_images, 28, 28) if "images" in name else (num_images,)
        top = 256 if "images" in name else 10
        content = idx(torch.randint(0, top, shape, generator=generator, dtype=torch.uint8))
        (folder / name).write_bytes(content)
        checksums[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(sources.MD5, "mnist", checksums)
    return folder


@pytest.fixture
def mirror(small_mnist: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real web server for the small files, as torchvision's only mirror."""
    handler = partial(QuietHandler, directory=str(small_mnist))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(datasets.MNIST, "mirrors", [url])
    yield url
    server.shutdown()
    server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def module(root: Path, **options: object) -> DataModule:
    data = DataModule(root=str(root), **options)  # type: ignore[arg-type]
    data.prepare_data()
    data.setup()
    return data


def test_batches_are_float32_in_0_to_1_with_int64_labels() -> None:
    data = module(Path("unused"), dataset="digits", batch_size=64)
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (64, 1, 28, 28)
    assert images.dtype == torch.float32
    assert images.min() == 0
    assert 0.9 < images.max() <= 1
    assert labels.shape == (64,)
    assert labels.dtype == torch.int64


def test_pixels_are_what_to_tensor_gives() -> None:
    data = module(Path("unused"), dataset="digits")
    images, _ = data.train[torch.arange(5)]
    assert torch.equal(images, data.train.images[:5] / 255)


def test_an_epoch_holds_every_image_once() -> None:
    data = module(Path("unused"), dataset="digits", batch_size=64)
    batches = list(data.train_dataloader())
    assert [len(labels) for _, labels in batches] == [64] * 23 + [28]
    seen = torch.cat([images for images, _ in batches]).flatten(1).sum(1).sort().values
    assert torch.equal(seen, data.train[torch.arange(1500)].images.flatten(1).sum(1).sort().values)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = Shuffled(1000, 100, seed)
        sampler.set_epoch(epoch)
        torch.rand(3)  # whatever else draws random numbers
        return torch.cat(list(sampler)).tolist()

    orders = {(seed, epoch): tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(set(orders.values())) == 9
    assert all(order(*key) == list(value) for key, value in orders.items())
    assert sorted(order(0, 0)) == list(range(1000))


def test_digits_are_framed_like_mnist() -> None:
    data = module(Path("unused"), dataset="digits")
    assert (len(data.train), len(data.test)) == (1500, 297)
    images, labels = data.train[torch.arange(1500)]
    assert labels.bincount().min() >= 145
    rows, columns = images.sum((1, 3)), images.sum((1, 2))
    assert ((rows > 0).sum(1) <= 20).all()
    position = torch.arange(28) + 0.5
    for mass in (rows, columns):
        centre = (mass @ position) / mass.sum(1)
        assert (centre - 14).abs().max() <= 0.51


def test_a_hold_out_is_stratified_disjoint_and_the_same_for_every_seed() -> None:
    one, other = (module(Path("unused"), dataset="digits", val_size=300, seed=seed) for seed in (0, 1))
    assert (len(one.train), len(one.val), len(one.test)) == (1200, 300, 297)
    assert one.val_name == "val"
    assert torch.equal(one.val.images, other.val.images)
    assert (one.val.labels.bincount() - 30).abs().max() <= 1
    whole = module(Path("unused"), dataset="digits")
    pixels = torch.cat([one.train.images, one.val.images]).flatten(1).double()
    weights = torch.rand(784, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(
        (pixels @ weights).sort().values, (whole.train.images.flatten(1).double() @ weights).sort().values
    )


def test_the_end_of_the_file_can_be_held_out() -> None:
    whole = DataModule(dataset="digits").ready()
    data = DataModule(dataset="digits", val_size=100, held_out="last").ready()
    assert (len(data.train), len(data.val), data.val_name) == (1400, 100, "val")
    for part, place in ((data.train, slice(None, 1400)), (data.val, slice(1400, None))):
        assert torch.equal(part.labels, whole.train.labels[place])
        assert torch.equal(part[:].images, whole.train[place].images)
    with pytest.raises(ValueError, match="the last 12 training images, or those before, are not of every class"):
        DataModule(dataset="digits", val_size=12, held_out="last").ready()


def test_without_a_hold_out_the_test_set_stands_in_by_its_own_name() -> None:
    data = module(Path("unused"), dataset="digits")
    assert data.val is data.test
    assert data.val_name == "test"


@pytest.mark.parametrize("val_size", [5, 1491, 70_000])
def test_a_hold_out_that_leaves_too_little_is_refused(val_size: int) -> None:
    with pytest.raises(ValueError, match=r"data.val_size must be 0 or from 10 to 1,490 .* set data.val_size="):
        module(Path("unused"), dataset="digits", val_size=val_size)


def test_files_are_downloaded_whole_and_read(mirror: str, small_mnist: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    data = module(root, fallback=None)
    assert (len(data.train), len(data.test)) == (200, 50)
    raw = root / "MNIST" / "raw"
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == {
        path.name: path.read_bytes() for path in small_mnist.iterdir()
    }
    assert [path.name for path in root.iterdir()] == ["MNIST"]


def test_two_downloads_at_once_do_not_collide(mirror: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: sources.download("mnist", root), range(2)))
    assert len(module(root, fallback=None).train) == 200


def test_a_download_with_a_wrong_checksum_is_thrown_away(mirror: str, small_mnist: Path, tmp_path: Path) -> None:
    (small_mnist / NAMES[0]).write_bytes(b"an error page of a captive portal")
    root = tmp_path / "data"
    with pytest.raises(ConnectionError, match=f"{NAMES[0]} of mnist .* could not be downloaded"):
        module(root, fallback=None)
    assert not (root / "MNIST").exists()


def test_a_silent_server_does_not_hang_the_download(
    small_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts and never answers
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.getsockname()[1]}/"])
        monkeypatch.setattr(sources, "TIMEOUT", 0.5)
        start = time.monotonic()
        with pytest.raises(ConnectionError, match="timed out"):
            module(tmp_path / "data", fallback=None)
        assert time.monotonic() - start < 5


def test_a_server_that_drips_does_not_hang_the_download(
    mirror: str, small_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PATIENCE", 0.0)
    with pytest.raises(ConnectionError, match="timed out"):
        module(tmp_path / "data", fallback=None)
    assert not (tmp_path / "data").exists()


def test_without_files_and_network_the_digits_stand_in_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody listens
    data = DataModule(root=str(tmp_path))
    with pytest.warns(FallbackWarning, match=r"(?s)MNIST/raw.*train-labels.*digits.*do NOT compare"):
        data.prepare_data()
    data.setup()
    assert data.dataset == "digits"
    assert len(data.train) == 1500


@pytest.fixture
def raw(small_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with the small files in place and no network."""
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in small_mnist.iterdir():
        (raw / path.name).write_bytes(path.read_bytes())
    return raw


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_a_damaged_file_is_named_with_the_expected_checksum(raw: Path, name: str, damage: str) -> None:
    content = (raw / name).read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    (raw / name).write_bytes({"truncated": content[:middle], "altered": flipped, "empty": b""}[damage])
    with pytest.raises(ValueError, match=f"{name} is damaged.*expected MD5 {hashlib.md5(content).hexdigest()}"):
        module(raw.parents[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_downloaded_anew_and_said(name: str, small_mnist: Path, mirror: str, tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    shutil.copytree(small_mnist, raw)
    (raw / name).write_bytes((raw / name).read_bytes()[:-1])
    with pytest.warns(sources.DamageWarning, match=f"{name} is damaged.*expected MD5 .*: downloaded anew"):
        assert len(module(tmp_path / "data", fallback=None).train) == 200
    assert (raw / name).read_bytes() == (small_mnist / name).read_bytes()


def test_a_damaged_file_that_cannot_be_healed_stays_as_it_is(raw: Path) -> None:
    (raw / NAMES[0]).write_bytes(b"half")
    with pytest.raises(ValueError, match=f"{NAMES[0]} is damaged.*could not be downloaded anew"):
        module(raw.parents[1], fallback=None)
    assert (raw / NAMES[0]).read_bytes() == b"half"
    assert [path.name for path in raw.parents[1].iterdir()] == ["MNIST"]


@pytest.mark.parametrize("damaged", ["packed", "unpacked"])
def test_packed_and_unpacked_files_stand_in_for_one_another(
    damaged: str, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = module(raw.parents[1])
    originals = {name: (raw / name).read_bytes() for name in NAMES}
    unpack(raw, monkeypatch)
    for name, content in originals.items():
        (raw / name).write_bytes(content)
    name = NAMES[0] if damaged == "packed" else NAMES[0].removesuffix(".gz")
    (raw / name).write_bytes(b"half")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        healed = module(raw.parents[1], fallback=None)
    assert torch.equal(healed.train.images, whole.train.images)
    words = [str(one.message) for one in said if one.category is sources.DamageWarning]
    if damaged == "packed":  # of the unpacked one nothing was wanted
        assert len(words) == 1
        assert f"{name} is damaged: 4 bytes" in words[0]
        assert words[0].endswith(f"{name.removesuffix('.gz')} is read instead")
    else:
        assert words == []
    assert (raw / name).read_bytes() == b"half"


def unpack(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only the unpacked files, with their checksums known."""
    for name in NAMES:
        content = gzip.decompress((raw / name).read_bytes())
        (raw / name).unlink()
        (raw / name).with_suffix("").write_bytes(content)
        monkeypatch.setitem(sources.UNPACKED_MD5, name.removesuffix(".gz"), hashlib.md5(content).hexdigest())


def test_unpacked_files_will_do(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = module(raw.parents[1])
    unpack(raw, monkeypatch)
    assert torch.equal(module(raw.parents[1], fallback=None).train.images, packed.train.images)


@pytest.mark.parametrize("form", ["unpacked under the packed name", "packed again", "dotted", "dotted and packed"])
def test_files_are_taken_by_their_content(form: str, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = module(raw.parents[1])
    for name in NAMES:
        content = gzip.decompress((raw / name).read_bytes())
        (raw / name).unlink()
        plain = name.removesuffix(".gz")
        monkeypatch.setitem(sources.UNPACKED_MD5, plain, hashlib.md5(content).hexdigest())
        again = gzip.compress(content, compresslevel=1, mtime=7)
        dotted = plain.replace("-idx", ".idx")
        written, what = {
            "unpacked under the packed name": (name, content),
            "packed again": (name, again),
            "dotted": (dotted, content),
            "dotted and packed": (f"{dotted}.gz", again),
        }[form]
        (raw / written).write_bytes(what)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = module(raw.parents[1], fallback=None)
    assert torch.equal(found.train.images, expected.train.images)
    assert torch.equal(found.test.labels, expected.test.labels)


def test_a_half_unpacked_file_is_named(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpack(raw, monkeypatch)
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="train-images-idx3-ubyte is damaged.*expected MD5"):
        module(raw.parents[1])


def test_a_half_unpacked_file_beside_the_original_does_no_harm(raw: Path) -> None:
    (raw / "train-images-idx3-ubyte").write_bytes(b"half")
    assert len(module(raw.parents[1]).train) == 200


@pytest.mark.parametrize("dataset", sources.FOLDERS)
def test_names_and_checksums_are_torchvisions(dataset: str) -> None:
    assert list(sources.MD5[dataset].items()) == getattr(datasets, sources.FOLDERS[dataset]).resources


@pytest.mark.mnist
def test_the_real_files_are_torchvisions(mnist_root: Path, tmp_path: Path) -> None:
    data = module(mnist_root, fallback=None)
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for path in (mnist_root / "MNIST" / "raw").glob("*.gz"):
        (tmp_path / "MNIST" / "raw" / path.name).write_bytes(path.read_bytes())
    for part, is_train in ((data.train, True), (data.test, False)):
        reference = datasets.MNIST(str(tmp_path), train=is_train, download=True)  # unpacks in the copy
        assert torch.equal(part.images[:, 0], reference.data)
        assert torch.equal(part.labels, reference.targets)


@pytest.mark.mnist
def test_the_unpacked_checksums_are_those_of_the_real_files(mnist_root: Path) -> None:
    for name in NAMES:
        content = gzip.decompress((mnist_root / "MNIST" / "raw" / name).read_bytes())
        assert hashlib.md5(content).hexdigest() == sources.UNPACKED_MD5[name.removesuffix(".gz")]


@pytest.mark.mnist
def test_the_training_file_is_ordered_by_writer(mnist_root: Path) -> None:
    """As docs/data.md says: two sources take turns, and in each of them neighbours have the same slant."""
    images, labels = load_images(root=mnist_root, split="train")
    place = torch.arange(28.0)
    ink = images[:, 0] / images.sum((1, 2, 3))[:, None, None]
    x = place - (ink * place).sum((1, 2))[:, None]
    y = place - (ink * place[:, None]).sum((1, 2))[:, None]
    slant = (ink * x[:, None, :] * y[:, :, None]).sum((1, 2)) / (ink * y[:, :, None] ** 2).sum((1, 2))
    of_class = torch.stack([slant[labels == k].mean() for k in range(10)])[labels]
    slant = slant - of_class
    correlation = [float((slant[:-lag] * slant[lag:]).mean() / slant.var()) for lag in (1, 2, 20, 200)]
    assert correlation[0] < 0  # of the other source
    assert correlation[1] > correlation[2] > correlation[3] > 0.15
