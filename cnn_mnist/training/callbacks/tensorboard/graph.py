"""The network as a graph of its operations."""

import io
import warnings
from contextlib import redirect_stdout, suppress

import pytorch_lightning as pl

from cnn_mnist.analysis import layers
from cnn_mnist.checks import untouched
from cnn_mnist.training.callbacks.picture_callback import PictureCallback, writers


class Graph(PictureCallback):
    """The network's operations, traced with an empty image; left out where torch cannot trace it."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Trace the network; a resumed run has its graph already."""
        if trainer.global_step:
            return
        network = pl_module.network
        for writer in writers(trainer):
            with untouched(network), warnings.catch_warnings():  # type: ignore[arg-type]
                warnings.simplefilter("ignore")  # torch's own tracer is deprecated, says torch
                with suppress(Exception), redirect_stdout(io.StringIO()):  # not every network can be traced
                    writer.add_graph(network, layers.example(network))  # type: ignore[arg-type]
