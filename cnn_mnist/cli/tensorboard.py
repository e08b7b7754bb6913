"""TensorBoard on the runs below outputs/ and multirun/."""

import threading
from contextlib import suppress

RUNS = "outputs:outputs,multirun:multirun"


def serve() -> None:
    """Serve it on the next free port, print its address, and wait until it is stopped with Ctrl+C."""
    from tensorboard import program

    server = program.TensorBoard()
    server.configure(argv=["tensorboard", "--logdir_spec", RUNS])
    address = server.launch()
    print(f"accuracy and loss: {address}#custom_scalars\neverything logged: {address}")
    print("runs that are added while it is open appear by themselves; Ctrl+C ends it", flush=True)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
