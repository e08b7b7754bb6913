"""Shared by all tests: real commands in temporary folders, the MNIST files, trained networks."""

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest
import torch
import torch.nn.functional as F

from cnn_mnist.data.batches import Batch
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.network import CNN
from cnn_mnist.report.subject import Subject
from tests.forked_commands import Warm

ROOT = Path(__file__).parents[1]
MNIST_ROOT = Path(os.environ.get("CNN_MNIST_DATA", ROOT / "data"))

MEMORY = Path("/dev/shm")  # temporary folders lie there where it has room: every checkpoint is waited for on a disk
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4e9:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

TIME_LIMIT = "CNN_MNIST_SLOW_TESTS_UNTIL"  # seconds since 1970
LONGEST = (  # files that take longest: begun first, so that no process has one left at the end
    "test_walkthrough.py",
    "test_lab_report.py",
    "test_recipes.py",
    "test_train.py",
    "test_killed.py",
    "test_trainer_options.py",
    "test_analyze.py",
    "test_jobs.py",
    "test_page.py",
    "test_distributed.py",
    "test_search.py",
    "test_extending.py",
    "test_own_networks.py",
    "test_picture.py",
    "test_optimizers.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files, and skip, with a word, what this machine cannot run."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    has_mnist = (MNIST_ROOT / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").exists()
    for item in items:
        if "mnist" in item.keywords and not has_mnist:
            item.add_marker(pytest.mark.skip(reason=f"no MNIST files in {MNIST_ROOT}"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, by name, the slow tests that have not begun by the time that `.ci/run` sets, on a machine that is slow."""
    if "slow" in item.keywords and time.time() > float(os.environ.get(TIME_LIMIT, "inf")):
        pytest.skip(f"{item.nodeid}: no time left ({TIME_LIMIT})")


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The folder that holds MNIST/raw; for tests marked `mnist`."""
    return MNIST_ROOT


class Done(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str
    cwd: Path

    @property
    def results_path(self) -> Path:
        """What the last line of stdout names."""
        return Path(self.out.splitlines()[-1].removeprefix("results: "))

    @property
    def folder(self) -> Path:
        return self.results_path.parent

    @property
    def results(self) -> dict[str, Any]:
        return json.loads(self.results_path.read_text())

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return torch.load(self.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


Command = Callable[..., Done]


NEEDS_A_FRESH_PROCESS = ("ddp", "launcher")  # they start processes of their own, which import the main module anew
READ_AT_THE_START = ("PYTHON", "OMP_", "MATPLOTLIB")  # variables that are read at the start, or with an import


def needs_a_fresh_process(arguments: tuple[str, ...]) -> bool:
    """Whether a command cannot be forked from the warm process."""
    return any(word in " ".join(arguments) for word in NEEDS_A_FRESH_PROCESS)


def command(script: str, tmp_path_factory: pytest.TempPathFactory, warm: Warm | None = None) -> Command:
    """`python SCRIPT ARGUMENTS` in an empty folder, or in `cwd`: forked from the warm process where that will do."""

    def run(*arguments: str, cwd: Path | None = None, timeout: float = 300, **environment: str) -> Done:
        folder = cwd or tmp_path_factory.mktemp("run")
        is_early = any(name.startswith(READ_AT_THE_START) for name in environment)
        if warm and not is_early and not needs_a_fresh_process(arguments):
            return Done(*warm.run(ROOT / script, arguments, folder, environment, timeout), folder)
        done = subprocess.run(
            [sys.executable, str(ROOT / script), *arguments],
            cwd=folder,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Done(done.returncode, done.stdout, done.stderr, folder)

    return run


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """A process that has imported everything, to fork commands from."""
    process = Warm()
    yield process
    process.close()


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Command:
    """Run `python train.py`."""
    return command("train.py", tmp_path_factory, warm)


@pytest.fixture(scope="session")
def analyze(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Command:
    """Run `python analyze.py`."""
    return command("analyze.py", tmp_path_factory, warm)


@pytest.fixture(scope="session")
def search(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Command:
    """Run `python search.py`."""
    return command("search.py", tmp_path_factory, warm)


SMALL = (
    "attack.targeted.steps=40",
    "attack.non_targeted.steps=60",
    "attack.noise.steps=60",
    "attack.noise.num_test_images=50",
    "attack.fgsm.num_images=50",
    "attack.pgd.num_images=50",
    "attack.pgd.epsilons=[0,0.1]",
    "activations.num_images=60",
    "occlusion.num_images=40",
    "class_image.num_images=2",
    "class_image.steps=20",
)


@pytest.fixture(scope="session")
def run(train: Command) -> Done:
    """A network trained on the digits, in a folder of its own."""
    done = train("data=digits", "trainer=cpu", "trainer.max_epochs=2", "model.batchnorm=true", "callbacks=none")
    assert done.status == 0, done.err
    return done


@pytest.fixture(scope="session")
def whole(run: Done, analyze: Command) -> Done:
    """Everything that `python analyze.py` does, for that network."""
    done = analyze(*SMALL, "images=12", cwd=run.cwd)
    assert done.status == 0, done.err
    return done


@pytest.fixture
def train_after(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Command:
    """`python train.py ARGUMENTS` in `cwd`, in a process that runs other lines of Python first."""

    def run(
        lines: str, *arguments: str, cwd: Path, interrupt: tuple[int, str | float] | None = None, **environment: str
    ) -> Done:
        script, real = tmp_path_factory.mktemp("first") / "first.py", str(ROOT / "train.py")
        then = f"import runpy, sys\nsys.argv[0] = {real!r}\nrunpy.run_path({real!r}, run_name='__main__')\n"
        script.write_text(f"{lines}\n{then}")
        return Done(*warm.run(script, arguments, cwd, environment, 300, interrupt), cwd)

    return run


class Interrupt(Protocol):
    """Start `python train.py ARGUMENTS` in `cwd` and send it a signal once it has printed `line`."""

    def __call__(self, *arguments: str, cwd: Path, line: str, number: int) -> Done: ...


@pytest.fixture
def interrupt(warm: Warm) -> Interrupt:
    """A run that a signal ends while it trains."""

    def run(*arguments: str, cwd: Path, line: str, number: int) -> Done:
        if not needs_a_fresh_process(arguments):
            return Done(*warm.run(ROOT / "train.py", arguments, cwd, {}, 300, (number, line)), cwd)
        with subprocess.Popen(
            [sys.executable, "-u", str(ROOT / "train.py"), *arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            limit = threading.Timer(300, process.kill)  # though it neither prints nor ends
            limit.start()
            before = "".join(iter(lambda: read_until(process, line), ""))
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
            limit.cancel()
        return Done(process.returncode, before + out, err, cwd)

    def read_until(process: subprocess.Popen[str], line: str) -> str:
        text = process.stdout.readline() if process.stdout else ""
        return "" if line in text else text

    return run


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="session")
def digits() -> Batch:
    """All test images of the digits."""
    data = DataModule("digits")
    data.setup()
    return data.test[torch.arange(len(data.test))]


@functools.cache
def trained(batchnorm: bool, kernel_size: int = 3) -> CNN:
    """A network after 40 steps on the digits, some 90 % right; with larger kernels after 10 small ones."""
    data = DataModule("digits")
    data.setup()
    torch.manual_seed(0)
    network = CNN(batchnorm, kernel_size)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    steps, size = (40, 100) if kernel_size == 3 else (10, 30)
    for step in range(steps):
        images, labels = data.train[torch.arange(step * 37, step * 37 + size) % len(data.train)]
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def seen_by(network: CNN, data: DataModule, folder: Path = Path("nowhere")) -> Subject:
    """A network that looks at the test images of the digits."""
    images, labels = data.test[:10]
    return Subject(
        network,
        folder / "checkpoints" / "last.ckpt",
        "digits",
        images,
        labels,
        torch.arange(10),
        data.test,
        lambda: data.train,
    )
