"""`cnn-mnist train`, `analyze` and `search`, in any folder: the checkout's three scripts; and `tensorboard`."""

import runpy
import sys

from cnn_mnist import __version__
from cnn_mnist.cli import signals, tensorboard
from cnn_mnist.front import COMMANDS, FRONT

USAGE = """\
cnn-mnist train [OPTION=VALUE ...]      train a network
cnn-mnist analyze [OPTION=VALUE ...]    explain a trained network, and attack it
cnn-mnist search [OPTION=VALUE ...]     search for better options of the training
cnn-mnist tensorboard                   open TensorBoard on the runs of this folder

cnn-mnist COMMAND --help lists the options; cnn-mnist --version the version. `python -m cnn_mnist` is the same."""


def main() -> None:
    """Run the command that the first word names."""
    word = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if word in ("-h", "--help"):
        print(USAGE)
    elif word == "--version":
        print(__version__)
    elif word in COMMANDS:
        signals.command = ["cnn-mnist", word]
        sys.argv = [str(FRONT / f"{word}.py"), *sys.argv[2:]]
        sys.path[0] = str(FRONT)
        runpy.run_path(sys.argv[0], run_name="__main__")
    elif word == "tensorboard" and len(sys.argv) == 2:
        tensorboard.serve()
    elif word == "tensorboard":
        print(USAGE)
    else:
        known = ", ".join((*COMMANDS, "tensorboard"))
        print(f"error: there is no command {word}: choose from {known}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
