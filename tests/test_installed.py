"""The wheel, installed into an environment of its own, does what the checkout does, in any folder."""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment that holds the wheel, and sees the other packages of this one."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    files = run("git", "ls-files", cwd=ROOT).stdout.splitlines()
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            (source / name).write_bytes((ROOT / name).read_bytes())
    wheel = run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        folder,
        source,
        cwd=folder,
    )
    assert wheel.returncode == 0, wheel.stderr
    made = run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    assert made.returncode == 0, made.stderr
    place = folder / "venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (place / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # whose own .pth files are not read
    (path,) = folder.glob("*.whl")
    put = run(
        sys.executable, "-m", "pip", "--python", folder / "venv", "install", "--no-deps", "--no-index", path, cwd=folder
    )
    assert put.returncode == 0, put.stderr
    return folder / "venv" / "bin"


def test_the_wheel_holds_commands_configurations_and_types(installed: Path) -> None:
    (path,) = installed.parents[1].glob("*.whl")
    names = zipfile.ZipFile(path).namelist()
    assert "cnn_mnist/py.typed" in names
    assert "cnn_mnist/report/words.yaml" in names
    conf = {str(file.relative_to(ROOT)) for file in (ROOT / "conf").rglob("*.yaml")}
    assert {f"cnn_mnist/front/{name}" for name in (*conf, "train.py", "analyze.py", "search.py")} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "conf"))]


@pytest.mark.slow
def test_it_trains_and_analyses_in_any_folder(installed: Path, tmp_path: Path) -> None:
    done = run(
        installed / "cnn-mnist",
        "train",
        "data=digits",
        "trainer=cpu",
        "trainer.max_epochs=1",
        "network=mlp",
        "callbacks=none",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert list(tmp_path.glob("outputs/digits-paper/*/results.json"))
    looked = run(installed / "python", "-m", "cnn_mnist", "analyze", "analysis=filters", cwd=tmp_path)
    assert looked.returncode == 0, looked.stderr
    assert Path(looked.stdout.splitlines()[-1].removeprefix("results: ")).is_file()
    assert '"git_commit": null' in Path(looked.stdout.splitlines()[-1].removeprefix("results: ")).read_text()


def test_it_is_the_installed_package_with_its_version(installed: Path, tmp_path: Path) -> None:
    code = "import cnn_mnist, sys; print(cnn_mnist.__file__, cnn_mnist.__version__, 'torch' in sys.modules)"
    place, version, has_torch = run(installed / "python", "-c", code, cwd=tmp_path).stdout.split()
    assert Path(place).is_relative_to(installed.parent)
    assert run(installed / "cnn-mnist", "--version", cwd=tmp_path).stdout == f"{version}\n"
    assert has_torch == "False"


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ((), 0, "cnn-mnist train [OPTION=VALUE ...]"),
        (("--help",), 0, "cnn-mnist COMMAND --help lists the options"),
        (("fly",), 1, "error: there is no command fly: choose from train, analyze, search"),
        (("train", "model.batchnrom=true"), 1, "error: unknown key model.batchnrom: did you mean model.batchnorm?"),
        (("search", "--trials", "0"), 1, "error: "),
    ],
)
def test_its_words(words: tuple[str, ...], status: int, says: str, installed: Path, tmp_path: Path) -> None:
    done = run(installed / "cnn-mnist", *words, cwd=tmp_path)
    assert done.returncode == status
    assert says in (done.stdout if status == 0 else done.stderr)
    assert len(done.stderr.splitlines()) == status
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("words", "verb"), [("analyze", "make"), ("train ckpt_path=last", "start")])
def test_it_names_its_own_command_where_there_is_no_run(words: str, verb: str, installed: Path, tmp_path: Path) -> None:
    done = run(installed / "cnn-mnist", *words.split(), cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(rf"error: there is no run .*: {verb} one with cnn-mnist train\n", done.stderr), done.stderr
