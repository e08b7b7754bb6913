"""TensorBoard on the runs below outputs/ and multirun/."""

import signal
import tempfile
import threading
from pathlib import Path

RUNS = ("outputs", "multirun")


def serve() -> None:
    """Serve it on the next free port, print its address, and wait until it is stopped with Ctrl+C.

    It opens on the charts of accuracy and loss (`callbacks.layout`).
    """
    from tensorboard import default, program
    from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin

    plugins = sorted(default.get_plugins(), key=lambda plugin: plugin is not CustomScalarsPlugin)
    with tempfile.TemporaryDirectory() as folder:  # one folder for both: the projector knows no --logdir_spec
        for name in RUNS:
            Path(folder, name).symlink_to(Path(name).resolve())
        server = program.TensorBoard(plugins)
        server.configure(argv=["tensorboard", "--logdir", folder])
        print(f"TensorBoard on {' and '.join(RUNS)}: {server.launch()}")
        print("new runs appear by themselves; Ctrl+C ends it", flush=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end)
        threading.Event().wait()


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)
