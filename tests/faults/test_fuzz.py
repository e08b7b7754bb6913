"""Any command line and any file content: one line, never a traceback, and never a false success."""

import io
import math
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig
from PIL import Image

from cnn_mnist.cli import entry, errors, schema
from cnn_mnist.data import picture, sources
from cnn_mnist.network import CNN
from cnn_mnist.runs import checkpoint
from cnn_mnist.sweeps import jobs
from tests.cli.test_schema import composed
from tests.conftest import ROOT, same

pytestmark = pytest.mark.slow
QUIETLY: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hydra leaves its folders in the current one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("fuzz"))
        yield


def outcome(words: list[str], script: str, capsys: pytest.CaptureFixture[str]) -> DictConfig | str:
    """The configuration that a command line comes to, or the line that refuses it."""
    accepted: list[DictConfig] = []

    def job(cfg: DictConfig) -> None:
        entry.run_folder()
        schema.check(cfg, {"train": schema.Train, "analyze": schema.Analyze}[script])
        accepted.append(cfg)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{script}.py", *words])
        patch.setenv("HYDRA_FULL_ERROR", "0")
        status = 0
        try:
            entry.run(job, str(ROOT / f"{script}.py"), jobs.do_job)
        except SystemExit as error:
            status = error.code
    assert status == (not accepted)
    said = capsys.readouterr().err
    if accepted:
        assert said == ""
        return accepted[0]
    assert said.startswith("error: "), said
    assert len(said.splitlines()) == 1, said
    assert "Traceback" not in said
    assert "HYDRA_FULL_ERROR" not in said  # a mistake that was foreseen
    return said


letters = st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r", exclude_categories=("Cs",)), max_size=12)
keys = st.sampled_from([*errors.keys_of(composed()), "experiment", "optimizer"])
values = st.one_of(
    letters, st.integers().map(str), st.floats().map(str), st.sampled_from(["null", "true", "[1,2]", "{a:1}"])
)
signs = st.sampled_from(["", "+", "++", "~"])


@given(sign=signs, key=st.one_of(keys, letters), value=values)
@settings(max_examples=150, **QUIETLY)
def test_any_option_is_taken_or_refused_in_a_line(
    sign: str, key: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if key.startswith(("-", "hydra")) or f"{key}{value}".startswith("-"):  # a flag, or Hydra's own
        return
    found = outcome([f"{sign}{key}={value}" if sign != "~" else f"~{key}"], "train", capsys)
    if isinstance(found, DictConfig):
        schema.check(found, schema.Train)


NUMBERS = {
    "model.lr": lambda value: 0 < value < math.inf,
    "data.batch_size": lambda value: value == int(value) and 1 <= value <= 1_000_000,
    "trainer.max_epochs": lambda value: value == int(value) and 1 <= value <= 1_000_000,
    "seed": lambda value: value == int(value) and 0 <= value < 2**32,
    "model.epsilon": lambda value: 0 <= value <= 1,
}


@given(key=st.sampled_from(sorted(NUMBERS)), value=st.one_of(st.integers(), st.floats(), st.integers(0, 100)))
@settings(max_examples=60, **QUIETLY)
def test_a_number_is_taken_exactly_where_it_may_be(key: str, value: float, capsys: pytest.CaptureFixture[str]) -> None:
    found = outcome([f"{key}={value}"], "train", capsys)
    is_whole = key in ("data.batch_size", "trainer.max_epochs", "seed")
    allowed = math.isfinite(value) and NUMBERS[key](value) and not (is_whole and isinstance(value, float))
    assert isinstance(found, DictConfig) == allowed, found


@given(words=st.lists(st.one_of(letters, st.builds("{}={}".format, keys, values)), min_size=1, max_size=4))
@settings(max_examples=60, **QUIETLY)
def test_any_command_line_of_an_analysis(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if any(word.startswith("-") or "hydra" in word for word in words):
        return
    outcome(words, "analyze", capsys)


Edits = list[tuple[int, bytes, bool]]


def mutated(content: bytes, edits: Edits, cut: int | None) -> bytes:
    """Overwrite or insert some bytes, and perhaps cut off the rest."""
    for place, put, is_insert in edits:
        content = content[:place] + put + content[place + (0 if is_insert else len(put)) :]
    return content[:cut]


def edits(*places: st.SearchStrategy[int]) -> st.SearchStrategy[Edits]:
    """Where to put a few bytes, and whether between those that are there."""
    return st.lists(st.tuples(st.one_of(*places), st.binary(min_size=1, max_size=8), st.booleans()), max_size=4)


def read_or_refused(read: Callable[[Path], Any], path: Path) -> Any:
    """What is read, or None where it was refused by name."""
    try:
        return read(path)
    except ValueError as error:
        refusal = error
    assert type(refusal) in (ValueError, picture.Refused)  # and none of some library's own
    assert path.name in str(refusal)
    return None


NETWORK = CNN()
with io.BytesIO() as _file:
    hyper_parameters = {"batchnorm": False, "lr": 1e-3, "schedule": None}
    state = {f"network.{key}": value for key, value in NETWORK.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": hyper_parameters, "global_step": 7, "epoch": 0}, _file)
    CHECKPOINT = _file.getvalue()
    with zipfile.ZipFile(_file) as _archive:
        MEMBERS = {name: _archive.read(name) for name in _archive.namelist()}
PICKLE = next(name for name in MEMBERS if name.endswith("data.pkl"))
END = len(CHECKPOINT)


@given(
    edits=edits(st.integers(0, 3000), st.integers(0, END), st.integers(END - 3000, END)),
    cut=st.none() | st.integers(0, END),
)
@settings(max_examples=100, **QUIETLY)
def test_any_bytes_of_a_checkpoint_are_refused_or_the_same_network(
    edits: Edits, cut: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.ckpt"
    path.write_bytes(mutated(CHECKPOINT, edits, cut))
    network = read_or_refused(checkpoint.load, path)
    assert network is None or same(network.state_dict(), NETWORK.state_dict())  # a date, or what nobody reads


@given(edits=edits(st.integers(0, len(MEMBERS[PICKLE]))))
@settings(max_examples=100, **QUIETLY)
def test_any_pickle_in_a_whole_archive_is_refused_or_a_network(
    edits: Edits, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.ckpt"
    with zipfile.ZipFile(path, "w") as archive:  # with checksums that fit
        for name, content in MEMBERS.items():
            archive.writestr(name, mutated(content, edits, None) if name == PICKLE else content)
    network = read_or_refused(checkpoint.load, path)
    assert network is None or isinstance(network, CNN)


IDX = struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 28, 28) + bytes(2 * 28 * 28)
LABELS = struct.pack(">BBBBI", 0, 0, 8, 1, 5) + bytes(range(5))


@given(
    content=st.sampled_from([IDX, LABELS, b""]), edits=edits(st.integers(0, 20)), cut=st.none() | st.integers(0, 1600)
)
@settings(max_examples=300, **QUIETLY)
def test_any_bytes_of_an_idx_file_are_refused_or_an_array(content: bytes, edits: Edits, cut: int | None) -> None:
    content = mutated(content, edits, cut)
    try:
        array = sources.parse_idx(content)
    except ValueError:
        return
    assert array.numel() == len(content) - 4 - 4 * array.ndim
    assert array.ndim in (1, 3)


KINDS = {
    "PNG": ("L", "LA", "P", "RGBA", "1"),
    "JPEG": ("RGB", "L", "CMYK"),
    "GIF": ("P",),
    "BMP": ("RGB",),
    "TIFF": ("L", "I;16"),
    "WEBP": ("RGB",),
}


def pictures() -> dict[str, bytes]:
    """A stroke on paper in every format and mode."""
    digit = np.zeros((40, 40), np.uint8)
    digit[8:32, 18:22] = 255
    found = {}
    for kind, modes in KINDS.items():
        for mode in modes:
            deep = Image.fromarray(digit.astype(np.uint16) * 257)
            content = io.BytesIO()
            (deep if mode == "I;16" else Image.fromarray(digit).convert(mode)).save(content, kind)
            found[f"{kind} {mode}"] = content.getvalue()
    return found


PICTURES = pictures()


@given(kind=st.sampled_from(sorted(PICTURES)), edits=edits(st.integers(0, 400)), cut=st.none() | st.integers(0, 400))
@settings(max_examples=500, **QUIETLY)
def test_any_bytes_of_a_picture_are_refused_or_an_image(
    kind: str, edits: Edits, cut: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.png"
    path.write_bytes(mutated(PICTURES[kind], edits, cut))
    found = read_or_refused(picture.read, path)
    if found is not None:
        assert found.image.shape == (1, 1, 28, 28)
        assert found.image.min() >= 0
        assert found.image.max() <= 1


def test_what_is_mutated_is_read_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "good.ckpt").write_bytes(CHECKPOINT)
    assert same(checkpoint.load(tmp_path / "good.ckpt").state_dict(), NETWORK.state_dict())
    assert sources.parse_idx(IDX).shape == (2, 28, 28)
    assert sources.parse_idx(LABELS).tolist() == [0, 1, 2, 3, 4]
    for content in PICTURES.values():
        (tmp_path / "good.png").write_bytes(content)
        picture.read(tmp_path / "good.png")
