"""Puts a copy of the three commands and of conf/ into the wheel, as cnn_mnist/front; all else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

COPIED = ("train.py", "analyze.py", "search.py", "conf")


class BuildWithFront(build_py):
    """The usual build, and the copy; an editable install uses the checkout's own."""

    def run(self) -> None:
        """Build."""
        super().run()
        if self.editable_mode:
            return
        front = Path(self.build_lib, "cnn_mnist", "front")
        shutil.rmtree(front, ignore_errors=True)  # of an earlier build
        front.mkdir(parents=True)
        for name in COPIED:
            (shutil.copytree if Path(name).is_dir() else shutil.copy2)(name, front / name)


setup(cmdclass={"build_py": BuildWithFront})
