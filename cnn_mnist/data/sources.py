"""Where images come from: the published IDX files, and the digits of scikit-learn.

A file is read only if its checksum is right, and never extracted. A download appears under its name whole and verified,
or not at all. MNIST's files are recognised by their content, in whatever form people have them: packed, unpacked,
packed again, or with a dot in the name. A damaged file is reported; if another form of it exists that one is read, and
a packed one is downloaded again.
"""

import gzip
import hashlib
import io
import math
import os
import shutil
import struct
import tempfile
import time
import warnings
import zlib
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from urllib.request import urlopen

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

SCRATCH = ".scratch-"  # prefix of a folder for a download that is not finished
SOURCES = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST, "kmnist": datasets.KMNIST}
NUM_DIGITS_TEST = 297  # of the 1,797: leaves 1,500 for training
Arrays = tuple[Tensor, Tensor]  # images uint8 (N, 1, 28, 28), labels int64 (N,)
TIMEOUT = 5.0  # seconds that a server may stay silent
PATIENCE = 600.0  # seconds that a file may take
MOST = 100_000_000  # bytes that a file may have: the largest has ten million
DAY = 86_400.0  # seconds after which a download is certainly over

# MNIST's files unpacked: what is in them, however they are packed. The packed ones' checksums are torchvision's.
UNPACKED_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def digits() -> tuple[Arrays, Arrays]:
    """The 1,797 digits of scikit-learn, framed as MNIST frames its own: 1,500 to train on, 297 to test with.

    Each 8x8 digit is scaled to 20x20 and placed with its centre of mass in the middle of 28x28. The split has
    equal shares of each class and never changes.
    """
    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float()[:, None] / 16
    large = F.interpolate(small, size=20, mode="bicubic", align_corners=False).clamp_(0, 1)
    mass = large.sum((1, 2, 3))
    centre = torch.arange(20.0) + 0.5
    top = (14 - (large.sum((1, 3)) @ centre) / mass).round().long().clamp_(0, 8)
    left = (14 - (large.sum((1, 2)) @ centre) / mass).round().long().clamp_(0, 8)
    images = torch.zeros(len(large), 1, 28, 28)
    for image, digit, i, j in zip(images, large, top.tolist(), left.tolist(), strict=True):
        image[:, i : i + 20, j : j + 20] = digit
    pixels, labels = images.mul_(255).round_().to(torch.uint8), torch.from_numpy(bunch.target).long()
    train, test = train_test_split(
        np.arange(len(images)), test_size=NUM_DIGITS_TEST, stratify=bunch.target, random_state=0
    )
    return (pixels[train], labels[train]), (pixels[test], labels[test])


class DamageWarning(UserWarning):
    """A file is damaged, and another one was used instead."""


def download(dataset: str, root: Path) -> None:
    """Download those of a data set's four files that are missing or damaged; each is verified.

    Raises:
        ConnectionError: A missing file could not be downloaded from any mirror.
        ValueError: A damaged file could not be replaced.
    """
    source = SOURCES[dataset]
    raw = _raw(dataset, root)
    for left in root.glob(f"{SCRATCH}*"):  # left by a killed process
        with suppress(OSError):  # another process removes it
            if time.time() - left.stat().st_mtime > DAY:
                shutil.rmtree(left)
    for name, md5 in source.resources:
        damage = _damage(dataset, root, name)
        if damage is None:
            continue
        root.mkdir(parents=True, exist_ok=True)
        # a folder of its own and a rename: two processes do not collide, and a kill leaves no half file
        with tempfile.TemporaryDirectory(dir=root, prefix=SCRATCH, ignore_cleanup_errors=True) as scratch:
            path = Path(scratch, name)
            for mirror in source.mirrors:
                try:
                    _fetch(f"{mirror.rstrip('/')}/{name}", path)
                except (OSError, HTTPException) as error:
                    reason = str(error)
                    continue
                if check_integrity(path, md5):
                    break
                reason = f"what {mirror} sends does not have MD5 {md5}"
            else:
                shutil.rmtree(scratch)
                with suppress(OSError):  # other data is in it
                    root.rmdir()
                names = ", ".join(name for name, _ in source.resources)
                if damage:
                    raise ValueError(f"{damage}, and could not be downloaded anew: put the original in its place")
                raise ConnectionError(
                    f"{name} of {dataset} is not in {raw} and could not be downloaded ({reason}). "
                    f"Put the four files there by hand: {names}"
                )
            raw.mkdir(parents=True, exist_ok=True)
            os.replace(path, raw / name)
        if damage:
            warnings.warn(f"{damage}: downloaded anew", DamageWarning, stacklevel=2)


def _fetch(url: str, path: Path) -> None:
    """Download a file with time limits, which torchvision's own download does not have.

    Raises:
        TimeoutError: No answer in `TIMEOUT` seconds, including name resolution and every address, or no complete
            file in `PATIENCE` seconds.
        OSError, HTTPException: Any other network error.
    """
    answers: SimpleQueue[HTTPResponse | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urlopen(url, timeout=TIMEOUT))
        except Exception as error:
            answers.put(error)

    Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=TIMEOUT)
    except Empty:
        raise TimeoutError(f"{url}: timed out") from None
    if isinstance(answer, Exception):
        raise answer
    deadline = time.monotonic() + PATIENCE
    with answer, path.open("wb") as file:
        while chunk := answer.read1(2**16):
            file.write(chunk)
            if file.tell() > MOST:
                raise OSError(f"{url}: more than {MOST:,} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url}: timed out")


def read(dataset: str, root: Path, part: str) -> Arrays:
    """Images and labels of one part of a data set, `train` or `t10k`.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file does not have its published checksum, and no other form of it exists.
    """
    arrays = []
    for name, _ in SOURCES[dataset].resources:
        if name.startswith(part):
            damaged = []
            for path in _candidates(dataset, root, name):
                content = path.read_bytes()
                if (unpacked := _published(dataset, name, content)) is not None:
                    arrays.append(parse_idx(unpacked))
                    break
                damaged.append(_differs(dataset, name, path, content))
            else:
                if damaged:
                    raise ValueError(f"{damaged[0]}: put the original in its place, or delete it to have it downloaded")
                raise FileNotFoundError(f"{name} of {dataset} is not in {_raw(dataset, root)}")
            if damaged:
                warnings.warn(f"{damaged[0]}: {path.name} is read instead", DamageWarning, stacklevel=2)
    images, labels = arrays  # torchvision lists images before labels
    return images[:, None], labels.long()


def _raw(dataset: str, root: Path) -> Path:
    return root / str(SOURCES[dataset].__name__) / "raw"


def _candidates(dataset: str, root: Path, name: str) -> list[Path]:
    """Files that may hold the data: the packed one and, for MNIST, other common names."""
    packed = _raw(dataset, root) / name
    names = [name]
    if dataset == "mnist":
        plain = packed.stem  # such as train-images-idx3-ubyte
        dotted = plain.replace("-idx", ".idx")  # as some archives unpack it
        names += [plain, dotted, f"{dotted}.gz"]
    return [path for path in map(packed.with_name, names) if path.is_file()]


def _published(dataset: str, name: str, content: bytes) -> bytes | None:
    """A file's content, unpacked, if it is what was published under `name`; otherwise None."""
    is_packed = content.startswith(b"\x1f\x8b")
    is_original = _md5(content) == dict(SOURCES[dataset].resources)[name]
    unpacked = content
    if is_packed:
        try:
            with gzip.open(io.BytesIO(content)) as file:
                unpacked = file.read(MOST)
        except (OSError, EOFError, zlib.error):
            return None
    if is_original or (dataset == "mnist" and _md5(unpacked) == UNPACKED_MD5[Path(name).stem]):
        return unpacked
    return None


def _damage(dataset: str, root: Path, name: str) -> str | None:
    """What is wrong with a file, empty if it is missing; None if it, or another form of it, is as published."""
    found = []
    for path in _candidates(dataset, root, name):
        content = path.read_bytes()
        if _published(dataset, name, content) is not None:
            return None
        found.append(_differs(dataset, name, path, content))
    return next(iter(found), "")


def _differs(dataset: str, name: str, path: Path, content: bytes) -> str:
    md5 = dict(SOURCES[dataset].resources)[name] if path.name == name else UNPACKED_MD5[Path(name).stem]
    return f"{path} is damaged: {len(content):,} bytes, MD5 {_md5(content)}, expected MD5 {md5}"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def parse_idx(content: bytes) -> Tensor:
    """The uint8 array of an unpacked IDX file (format: yann.lecun.com/exdb/mnist).

    Raises:
        ValueError: It is not an IDX file, or its header does not match its length.
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError(f"it is no IDX file of bytes: it begins with {content[:4]!r}")
    num_axes = content[3]
    if num_axes not in (1, 3):
        raise ValueError(f"it has {num_axes} axes: labels have 1, images 3")
    start = 4 + 4 * num_axes
    if len(content) < start:
        raise ValueError(f"its header of {num_axes} axes is cut off after {len(content)} bytes")
    shape = struct.unpack_from(f">{num_axes}I", content, offset=4)
    if math.prod(shape) != len(content) - start:
        raise ValueError(f"it has {len(content) - start:,} bytes for an array of {' x '.join(map(str, shape))}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)
