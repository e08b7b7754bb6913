"""Where the three commands and their configuration files are: the checkout, or the copy in an installed package."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
COPY = PACKAGE / "front"  # made by setup.py
IS_INSTALLED = COPY.is_dir()
FRONT = COPY if IS_INSTALLED else PACKAGE.parent
CONF = FRONT / "conf"
TO_TRAIN = "cnn-mnist train" if IS_INSTALLED else "python train.py"  # as a user types it
COMMANDS = ("train", "analyze", "search")
