"""One fault per row: the command, its message, its exit status, and every file unchanged."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image

from cnn_mnist.network import CNN
from tests.conftest import Command
from tests.data.test_picture import huge
from tests.faults.conftest import fingerprints
from tests.runs.test_checkpoint import Payload, changed, saved


def last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def damage(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Change the bytes of the run's checkpoint."""

    def arrange(folder: Path) -> None:
        last(folder).write_bytes(change(last(folder).read_bytes()))

    return arrange


def replace(**changes: Any) -> Callable[[Path], None]:
    """Change what the run's checkpoint holds; None takes it out."""

    def arrange(folder: Path) -> None:
        content = torch.load(last(folder), weights_only=True) | changes
        torch.save({key: value for key, value in content.items() if value is not None}, last(folder))

    return arrange


def malicious(folder: Path) -> None:
    content = torch.load(last(folder), weights_only=True)
    torch.save(content | {"extra": Payload(folder.parents[2] / "the payload ran")}, last(folder))


def other_size(folder: Path) -> None:
    saved(folder.parents[2] / "large.ckpt", CNN(num_classes=7))


def written(name: str, content: str) -> Callable[[Path], None]:
    """Put a file into the folder of the command, or into the run's."""

    def arrange(folder: Path) -> None:
        path = folder / name.removeprefix("run/") if name.startswith("run/") else folder.parents[2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    return arrange


def moving_picture(folder: Path) -> None:
    frames = [Image.new("L", (28, 28), grey) for grey in (0, 100, 200)]
    frames[0].save(folder.parents[2] / "moving.gif", save_all=True, append_images=frames[1:])


def huge_picture(folder: Path) -> None:
    huge(folder.parents[2] / "huge.png")


def cut_picture(folder: Path) -> None:
    path = folder.parents[2] / "cut.png"
    Image.effect_noise((60, 60), 90).save(path)
    path.write_bytes(path.read_bytes()[:-200])


def mnist(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Files with MNIST's names that are not MNIST's."""

    def arrange(folder: Path) -> None:
        raw = folder.parents[2] / "data" / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
            (raw / f"{name}-ubyte.gz").write_bytes(change(b"\x1f\x8b\x08\x00 not really"))

    return arrange


def nothing(folder: Path) -> None:
    """Leave all as it is."""


class Row(NamedTuple):
    """A fault.

    Attributes:
        command: What is typed, RUN standing for the run's folder.
        sentence: What the one line on stderr says, or else stdout.
        arrange: What is done to the run's folder, or to that of the command, before.
        status: What the command ends with.
    """

    command: str
    sentence: str
    arrange: Callable[[Path], None] = nothing
    status: int = 1


ROWS = {
    # options
    "unknown group option": Row("train.py data=mnst", "data=mnst does not exist: did you mean mnist?"),
    "misspelt key": Row("train.py model.batchnrom=true", "unknown key model.batchnrom: did you mean model.batchnorm?"),
    "added key": Row("train.py +model.lrr=1", "unknown key model.lrr: did you mean model.lr?"),
    "added key at the top": Row("train.py +lrr=1", "unknown key lrr: choose from callbacks, ckpt_path, data"),
    "added group": Row("train.py +data=digits", "data is there already: write data=... without the +"),
    "added key of an attack": Row("analyze.py attack=pgd +attack.beta=1", "unknown key attack.beta"),
    "added key of the trainer": Row(
        "train.py data=digits +trainer.max_epoch=1",
        "unknown key trainer.max_epoch: did you mean trainer.max_epochs?",
    ),
    "section left out": Row("train.py ~model", "model cannot be left out"),
    "number for a group": Row("train.py callbacks=[0]", "must name a file in conf/callbacks: set callbacks=NAME"),
    "no key": Row("train.py +=", "'+=' is not an option: write key=value"),
    "number to build": Row(
        "train.py logger.csv._target_=0", "logger.csv._target_ must be the name of a class or function"
    ),
    "not an option": Row("train.py batchnorm", "'batchnorm' is not an option: write key=value"),
    "unknown flag": Row("train.py --fast", "unrecognized arguments: --fast (--help shows examples)"),
    "wrong type": Row("train.py model.lr=fast", "model.lr must be a number above 0, got fast: set model.lr="),
    "wrong type, a yes": Row("train.py model.batchnorm=1", "model.batchnorm must be true or false, got 1"),
    "negative number": Row("train.py model.lr=-1", "model.lr must be a number above 0, got -1"),
    "nan": Row("train.py model.lr=nan", "model.lr must be a number above 0, got nan"),
    "inf": Row("train.py model.weight_decay=inf", "model.weight_decay must be a number of at least 0, got inf"),
    "huge seed": Row("train.py seed=4294967296", "seed must be a whole number from 0 to 4,294,967,295"),
    "huge number": Row(f"train.py trainer.max_epochs={10**30}", "trainer.max_epochs must be a whole number from 1 to"),
    "batch size 0": Row("train.py data.batch_size=0", "data.batch_size must be a whole number from 1 to"),
    "epochs 0": Row("train.py trainer.max_epochs=0", "trainer.max_epochs must be a whole number from 1 to"),
    "steps 0": Row("analyze.py attack=targeted attack.steps=0", "attack.steps must be a whole number of at least 1"),
    "target 10": Row(
        "analyze.py attack=targeted attack.target=10", "attack.target must be a class of the network, 0..9"
    ),
    "comma without -m": Row("train.py seed=0,1", "seed has several values, 0,1: add -m to sweep over them"),
    "empty sweep": Row("train.py -m seed=range(0,0)", "the sweep is empty"),
    "mistake in a sweep": Row("train.py -m data=digits model.lrr=1,2", "unknown key model.lrr: did you mean model.lr?"),
    "path with =": Row("analyze.py ckpt_path=a=b", """write "ckpt_path='a=b'\""""),
    "path with a bracket": Row("train.py data.root=[data", """write "data.root='[data'\""""),
    "path with a leading ~": Row("analyze.py ckpt_path=~/run", """write "ckpt_path='~/run'\""""),
    "path as it says": Row("""analyze.py "ckpt_path='a=b'\"""", "there is no checkpoint at a=b: set ckpt_path="),
    "path with a comma": Row("analyze.py ckpt_path=a,b", """or "ckpt_path='a,b'" for one text with a comma"""),
    "path with a comma, as it says": Row("""analyze.py "ckpt_path='a,b'\"""", "there is no checkpoint at a,b: set"),
    "path with ~, as it says": Row("""analyze.py "ckpt_path='~/nowhere'\"""", "there is no checkpoint at /"),
    "path with ${": Row("""analyze.py 'ckpt_path=a${b'""", r"""write 'ckpt_path='"'"'a\${b'"'"''"""),
    "path with ${, as it says": Row(r"""analyze.py 'ckpt_path='"'"'a\${b'"'"''""", "there is no checkpoint at a${b:"),
    "sweep with ~": Row("""analyze.py "sweep='~/nowhere'\"""", "/nowhere is not the folder of a sweep"),
    "picture with ~": Row("""analyze.py "image='~/nowhere.png'\"""", "there is no picture at /"),
    "change of folder": Row("train.py data=digits hydra.job.chdir=true", "hydra.job.chdir=true is not supported"),
    "the same job twice": Row(
        "train.py -m data=digits seed=1,1", "the sweep has the same job twice, data=digits seed=1"
    ),
    "no GPU": Row(
        "train.py data=digits trainer=gpu", "trainer.accelerator=gpu, but torch finds no GPU: set trainer=cpu"
    ),
    # checkpoints
    "no run": Row("analyze.py", "there is no run below outputs/ or multirun/ to analyse", shutil.rmtree),
    "no run to resume": Row(
        "train.py ckpt_path=last",
        "there is no run below outputs/ or multirun/ to resume",
        shutil.rmtree,
    ),
    "missing checkpoint": Row("analyze.py ckpt_path=nowhere", "there is no checkpoint at nowhere: set ckpt_path="),
    "missing other": Row("analyze.py against=nowhere", "there is no checkpoint at nowhere: set against="),
    "empty checkpoint": Row("analyze.py ckpt_path=RUN/checkpoints/last.ckpt", "is empty", damage(lambda good: b"")),
    "text for a checkpoint": Row(
        "train.py ckpt_path=RUN/checkpoints/last.ckpt",
        "it is no archive, but begins with b'text'",
        damage(lambda good: b"text"),
    ),
    "folder for a checkpoint": Row(
        "analyze.py ckpt_path=outputs", "there is no checkpoint at outputs/checkpoints/last"
    ),
    "truncated checkpoint": Row(
        "train.py ckpt_path=RUN/checkpoints/last.ckpt", "is cut off", damage(lambda good: good[: len(good) // 2])
    ),
    "flipped bit": Row(
        "analyze.py ckpt_path=RUN/checkpoints/last.ckpt",
        "does not have its checksum",
        damage(lambda good: changed(good, len(good) // 2)),
    ),
    "flipped bit in the newest run": Row(
        "analyze.py", "does not have its checksum", damage(lambda good: changed(good, len(good) // 2))
    ),
    "address for a checkpoint": Row("analyze.py ckpt_path=https://example.com/last.ckpt", "is an address"),
    "foreign checkpoint": Row(
        "analyze.py ckpt_path=RUN",
        "is a checkpoint of another kind of network",
        replace(state_dict={"w": torch.ones(2)}),
    ),
    "malicious checkpoint": Row(
        "analyze.py ckpt_path=RUN", "it holds a pickle which names getattr, and is not run", malicious
    ),
    "malicious checkpoint to train on": Row(
        "train.py ckpt_path=RUN trainer.max_epochs=2", "it holds a pickle which names getattr", malicious
    ),
    "weights that are not finite": Row(
        "analyze.py ckpt_path=RUN",
        "holds weights that are NaN or infinite: fc2.bias",
        lambda folder: replace(
            state_dict=torch.load(last(folder), weights_only=True)["state_dict"]
            | {"network.fc2.bias": torch.full((10,), torch.nan)}
        )(folder),
    ),
    "weights alone to train on": Row(
        "train.py ckpt_path=RUN trainer.max_epochs=2", "but no state of the optimiser", replace(optimizer_states=None)
    ),
    "two sizes of filters": Row(
        "analyze.py ckpt_path=RUN against=large.ckpt", "the networks have 10 and 7 classes", other_size
    ),
    "run that is finished": Row("train.py ckpt_path=RUN", "has finished its training already", status=0),
    "other options for a run": Row("train.py ckpt_path=last model.lr=0.5", "cannot change to 0.5 on resuming"),
    "malicious config.yaml, in a list": Row(
        "train.py ckpt_path=RUN",
        "asks for os.system, which is not run from a file",
        lambda folder: (folder / "config.yaml").write_text(
            (folder / "config.yaml")
            .read_text()
            .replace("model:\n", "model:\n  x: [{_target_: os.system, command: ls}]\n")
        ),
    ),
    "malicious config.yaml": Row(
        "train.py ckpt_path=RUN",
        "asks for os.system, which is not run from a file",
        lambda folder: (folder / "config.yaml").write_text(
            (folder / "config.yaml")
            .read_text()
            .replace("callbacks: {}", "callbacks: {x: {_target_: os.system, command: ls}}")
        ),
    ),
    "damaged config.yaml": Row(
        "train.py ckpt_path=RUN", "is damaged: it is not a run's", written("run/config.yaml", "[1, {")
    ),
    "number for a config.yaml": Row(
        "train.py ckpt_path=RUN", "is damaged: it is not a run's", written("run/config.yaml", "5")
    ),
    "damaged results.json": Row("analyze.py", "results.json is damaged", written("run/results.json", '{"epochs": 1')),
    # data
    "no network and no data": Row("train.py data=mnist data.fallback=null", "could not be downloaded"),
    "files with a wrong checksum": Row(
        "train.py data=mnist", "is damaged: 15 bytes, MD5 ", mnist(lambda content: content)
    ),
    # pictures
    "missing picture": Row("analyze.py image=nowhere.png", "there is no picture at nowhere.png"),
    "no picture": Row(
        "analyze.py image=text.png", "it is no picture in a format that is read", written("text.png", "text")
    ),
    "truncated picture": Row("analyze.py image=cut.png", "cut.png cannot be read as a picture", cut_picture),
    "huge picture": Row("analyze.py image=huge.png", "huge.png has too many pixels", huge_picture),
    "animated picture": Row("analyze.py image=moving.gif", "is animated: save one of its 3 frames", moving_picture),
    "picture of one pixel": Row(
        "analyze.py image=one.png",
        "is blank",
        lambda folder: Image.new("L", (1, 1)).save(folder.parents[2] / "one.png"),
    ),
    "missing in a list": Row("analyze.py image=[text.png,no.png]", "at no.png: set image= to", written("text.png", "")),
    "folder without pictures": Row(
        "analyze.py image=empty", "there is no picture in empty", lambda folder: (folder.parents[2] / "empty").mkdir()
    ),
    "folder of no pictures": Row(
        "analyze.py image=[text.png]", "none of 1 pictures can be read; the first, text.png", written("text.png", "")
    ),
    "no list": Row("analyze.py image=[]", "image must be null or a path, or a list such as [a.png,b.png], got []"),
    # places
    "output is a file": Row(
        "train.py data=digits", "cannot use outputs/digits-paper/", lambda folder: _file_instead(folder.parent)
    ),
}


def _file_instead(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


OFFLINE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


@pytest.mark.parametrize("name", ROWS)
def test_a_fault_is_one_line_and_changes_nothing(
    name: str, train: Command, analyze: Command, run_folder: Path, tmp_path: Path
) -> None:
    row = ROWS[name]
    row.arrange(run_folder)
    before = fingerprints(tmp_path)
    script, *words = shlex.split(row.command.replace("RUN", str(run_folder.relative_to(tmp_path))))
    done = {"train.py": train, "analyze.py": analyze}[script](*words, cwd=tmp_path, **OFFLINE)
    assert done.status == row.status, done.err
    if row.status:
        assert row.sentence in done.err
        assert done.err.startswith("error: ")
        assert len(done.err.splitlines()) == 1
        assert "HYDRA_FULL_ERROR" not in done.err  # a mistake that was foreseen
    else:
        assert done.err == ""
        assert row.sentence in done.out
        assert done.results_path == run_folder / "results.json"
    assert fingerprints(tmp_path) == before
