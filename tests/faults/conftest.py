"""Real commands that fail: their message, exit status, and unchanged files."""

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.conftest import Command, Done


def fingerprints(folder: Path) -> dict[str, str]:
    """Every file below a folder and what tells its content from another."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="session")
def finished(train: Command) -> Done:
    """A run of one epoch on the digits."""
    done = train("data=digits", "trainer=cpu", "trainer.max_epochs=1", "callbacks=none")
    assert done.status == 0, done.err
    return done


@pytest.fixture
def run_folder(finished: Done, tmp_path: Path) -> Path:
    """A copy of its folder, where a command in `tmp_path` finds it as the newest run."""
    folder = tmp_path / "outputs" / "digits-paper" / "run"
    shutil.copytree(finished.folder, folder)
    return folder
