"""Find checkpoints and runs, and check that files are whole. Imports no torch, so that errors appear at once."""

import zipfile
from pathlib import Path

from cnn_mnist.front import TO_TRAIN

LAST = "last"  # instead of a path: the newest run


def find(path: str | Path, *, prefer_best: bool = False, key: str = "ckpt_path") -> Path:
    """The checkpoint that a path names: a file, or one in a run's folder.

    Args:
        path: A checkpoint or a run's folder.
        prefer_best: Of a folder, the checkpoint chosen by a hold-out if there is one, otherwise the last.
        key: The option that it comes from, for errors.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: The path is a URL.
    """
    if "://" in str(path):
        raise ValueError(f"{path} is an address: a checkpoint must be a file of this machine, see {key}=")
    file = Path(path).expanduser()
    if file.is_dir():
        best, last = (file / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
        file = best if prefer_best and best.is_file() else last
    if not file.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {file}: set {key}= to a run's folder or a .ckpt file")
    return file


def newest() -> Path:
    """The checkpoint of the newest run below outputs/ and multirun/, of the current folder.

    Raises:
        FileNotFoundError: There is no run.
    """
    found = [file for base in ("outputs", "multirun") for file in Path(base).glob("*/*/checkpoints/last.ckpt")]
    if not found:
        raise FileNotFoundError(f"there is no run below outputs/ or multirun/ to analyse: make one with {TO_TRAIN}")
    return find(max(found, key=lambda file: file.stat().st_mtime).parent.parent, prefer_best=True)


def is_begun(folder: Path) -> bool:
    """Whether a folder is that of a training run, with or without a checkpoint in it yet."""
    return (folder / "checkpoints").is_dir() and (folder / "config.yaml").is_file()


def newest_run() -> Path:
    """The folder of the newest training run below outputs/ and multirun/ of the current folder.

    Raises:
        FileNotFoundError: There is none.
    """
    begun = [run for base in ("outputs", "multirun") for run in Path(base).glob("*/*") if is_begun(run)]
    if not begun:
        raise FileNotFoundError(f"there is no run below outputs/ or multirun/ to resume: start one with {TO_TRAIN}")
    return max(begun, key=lambda run: max(path.stat().st_mtime for path in (run, run / "checkpoints")))


def run_of(path: str | Path) -> Path | None:
    """The folder of the training run that `ckpt_path` names, or None where it names a file.

    Raises:
        FileNotFoundError: The newest run is asked for, and there is none.
    """
    place = newest_run() if path == LAST else Path(path).expanduser()
    return place.resolve() if is_begun(place) else None


def check(file: Path) -> None:
    """Check that a file is an undamaged archive of torch.save.

    Raises:
        ValueError: It is not.
    """
    with file.open("rb") as opened:
        start = opened.read(4)
    if not start:
        raise ValueError(f"{file} is empty")
    if start != b"PK\3\4":
        raise ValueError(f"{file} is not a checkpoint: it is no archive, but begins with {start!r}")
    try:
        with zipfile.ZipFile(file) as archive:
            is_packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
            damaged = None if is_packed else archive.testzip()  # torch.load itself does not notice a flipped bit
    except zipfile.BadZipFile as error:
        raise ValueError(f"{file} is cut off, or damaged at its end ({error})") from error
    except Exception as error:  # malformed sizes, flags and names can break zipfile in any way
        raise ValueError(f"{file} is damaged ({str(error) or type(error).__name__})") from error
    if is_packed:  # a few bytes could expand to many
        raise ValueError(f"{file} is not a checkpoint: what is in it is compressed")
    if damaged:
        raise ValueError(f"{file} is damaged: {damaged} in it does not have its checksum")
