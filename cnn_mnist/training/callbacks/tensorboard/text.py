"""What was run, as text."""

from pathlib import Path

import pytorch_lightning as pl

from cnn_mnist.analysis.architecture import architecture, total
from cnn_mnist.training.callbacks.picture_callback import PictureCallback, writers


class Text(PictureCallback):
    """The configuration, and the table of layers."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write both."""
        for writer in writers(trainer):
            config = Path(writer.log_dir, "config.yaml")
            if config.is_file():
                text = config.read_text(encoding="utf-8")
                writer.add_text("configuration", "\n".join(f"    {line}" for line in text.splitlines()))
            writer.add_text("architecture", _table(pl_module))


def _table(pl_module: pl.LightningModule) -> str:
    """The layers as a table in Markdown."""
    layers = architecture(pl_module.network)  # type: ignore[arg-type]
    rows = [
        [
            layer.label,
            " x ".join(map(str, layer.input)),
            " x ".join(map(str, layer.output)),
            f"{layer.num_parameters:,}",
            f"{layer.num_neurons:,}",
        ]
        for layer in layers
    ]
    everything = total(layers)
    rows.append(["all", "", "", f"{everything.num_parameters:,}", f"{everything.num_neurons:,}"])
    head = ["layer", "input", "output", "parameters", "neurons"]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---", *["---:"] * 4], *rows))
