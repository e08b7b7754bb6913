"""Where images come from: the published IDX files, and the digits of scikit-learn.

A published file is read only if its checksum is right, and never extracted. A download appears under its name whole and
verified, or not at all. MNIST's files are recognised by their content, in whatever form people have them: packed,
unpacked, packed again, or with a dot in the name. A damaged file is reported; if another form of it exists that one is
read, and a packed one is downloaded again.
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
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any
from urllib.request import urlopen

import torch
from torch import Tensor

from cnn_mnist.data import own_images, torchvision_sets
from cnn_mnist.data.digits import digits

SCRATCH = ".scratch-"  # prefix of a folder for a download that is not finished
FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}  # named like torchvision's classes
PARTS = {"train": "train", "test": "t10k"}  # the names of the files begin with these
Arrays = tuple[Tensor, Tensor]  # images uint8 (N, 1, 28, 28), labels int64 (N,)
NAMES = {  # of classes that are not the digits
    "fashion_mnist": ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}
TIMEOUT = 5.0  # seconds that a server may stay silent
PATIENCE = 600.0  # seconds that a file may take
MOST = 100_000_000  # bytes that a file may have: the largest has ten million
DAY = 86_400.0  # seconds after which a download is certainly over

MD5 = {  # of each data set's four files, as torchvision lists them; importing it takes seconds
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    "kmnist": {
        "train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
        "train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
        "t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
        "t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134",
    },
}
# MNIST's files unpacked: what is in them, however they are packed.
UNPACKED_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
ALL = (*MD5, "digits", *torchvision_sets.SETS, *own_images.KINDS)


def classes(dataset: str, root: Path) -> tuple[str, ...]:
    """The names of the classes.

    Raises:
        ValueError: See `own_images.read`.
    """
    if dataset in own_images.KINDS:
        return own_images.read(dataset, root).classes
    return NAMES.get(dataset) or torchvision_sets.classes(dataset)


def load(dataset: str, root: Path, split: str) -> Arrays:
    """Images and labels of `train` or `test`; missing files are downloaded.

    Raises:
        ConnectionError, ValueError: See `download` and `read`.
    """
    download(dataset, root)
    return read(dataset, root, split)


class DamageWarning(UserWarning):
    """A file is damaged, and another one was used instead."""


def download(dataset: str, root: Path) -> None:
    """Download those of a data set's four files that are missing or damaged; each is verified. The digits need none.

    Raises:
        ConnectionError: A missing file could not be downloaded from any mirror.
        ValueError: A damaged file could not be replaced.
    """
    if dataset == "digits" or dataset in own_images.KINDS:
        return
    if dataset in torchvision_sets.SETS:
        torchvision_sets.download(dataset, root)
        return
    raw = _raw(dataset, root)
    for left in root.glob(f"{SCRATCH}*"):  # left by a killed process
        with suppress(OSError):  # another process removes it
            if time.time() - left.stat().st_mtime > DAY:
                shutil.rmtree(left)
    for name, md5 in MD5[dataset].items():
        damage = _damage(dataset, root, name)
        if damage is None:
            continue
        from torchvision import datasets  # takes seconds to import: only for a download

        root.mkdir(parents=True, exist_ok=True)
        # a folder of its own and a rename: two processes do not collide, and a kill leaves no half file
        with tempfile.TemporaryDirectory(dir=root, prefix=SCRATCH, ignore_cleanup_errors=True) as scratch:
            path = Path(scratch, name)
            for mirror in getattr(datasets, FOLDERS[dataset]).mirrors:
                try:
                    _fetch(f"{mirror.rstrip('/')}/{name}", path)
                except (OSError, HTTPException) as error:
                    reason = str(error)
                    continue
                if _md5(path.read_bytes()) == md5:
                    break
                reason = f"what {mirror} sends does not have MD5 {md5}"
            else:
                shutil.rmtree(scratch)
                with suppress(OSError):  # other data is in it
                    root.rmdir()
                names = ", ".join(MD5[dataset])
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


def is_own(data: Mapping[Any, Any]) -> bool:
    """Whether a node describes a data module of the user's own: older runs name this package's by another path."""
    return not str(data["_target_"]).startswith("cnn_mnist.")


def read(dataset: str, root: Path, split: str) -> Arrays:
    """Images and labels of one part of a data set, `train` or `test`.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file does not have its published checksum, and no other form of it exists.
    """
    if dataset == "digits":
        return digits()[split]
    if dataset in own_images.KINDS:
        arrays_of: Arrays = getattr(own_images.read(dataset, root), split)
        return arrays_of
    if dataset in torchvision_sets.SETS:
        return torchvision_sets.read(dataset, root, split)
    arrays = []
    for name in MD5[dataset]:
        if name.startswith(PARTS[split]):
            damaged = []
            for path in _candidates(dataset, root, name):
                content = path.read_bytes()
                if _is_published(dataset, name, content):
                    arrays.append(parse_idx(_unpacked(content)))
                    break
                damaged.append(_differs(dataset, name, path, content))
            else:
                if damaged:
                    raise ValueError(f"{damaged[0]}: put the original in its place, or delete it to have it downloaded")
                raise FileNotFoundError(f"{name} of {dataset} is not in {_raw(dataset, root)}")
            if damaged:
                warnings.warn(f"{damaged[0]}: {path.name} is read instead", DamageWarning, stacklevel=2)
    images, labels = arrays  # in the order of MD5
    return images[:, None], labels.long()


def _raw(dataset: str, root: Path) -> Path:
    return root / FOLDERS[dataset] / "raw"


def _candidates(dataset: str, root: Path, name: str) -> list[Path]:
    """Files that may hold the data: the packed one and, for MNIST, other common names."""
    packed = _raw(dataset, root) / name
    names = [name]
    if dataset == "mnist":
        plain = packed.stem  # such as train-images-idx3-ubyte
        dotted = plain.replace("-idx", ".idx")  # as some archives unpack it
        names += [plain, dotted, f"{dotted}.gz"]
    return [path for path in map(packed.with_name, names) if path.is_file()]


def _is_published(dataset: str, name: str, content: bytes) -> bool:
    """Whether a file's content is what was published under `name`."""
    if _md5(content) == MD5[dataset][name]:
        return True
    if dataset != "mnist":
        return False
    try:
        return _md5(_unpacked(content)) == UNPACKED_MD5[Path(name).stem]
    except (OSError, EOFError, zlib.error):
        return False


def _unpacked(content: bytes) -> bytes:
    """A file's content, without its packing if it is packed."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    with gzip.open(io.BytesIO(content)) as file:
        return file.read(MOST)


def _damage(dataset: str, root: Path, name: str) -> str | None:
    """What is wrong with a file, empty if it is missing; None if it, or another form of it, is as published."""
    found = []
    for path in _candidates(dataset, root, name):
        content = path.read_bytes()
        if _is_published(dataset, name, content):
            return None
        found.append(_differs(dataset, name, path, content))
    return next(iter(found), "")


def _differs(dataset: str, name: str, path: Path, content: bytes) -> str:
    md5 = MD5[dataset][name] if path.name == name else UNPACKED_MD5[Path(name).stem]
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
