"""The record of a training: results.json, and TensorBoard's HParams tab."""

import inspect
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams as summaries

from cnn_mnist.analysis.architecture import architecture, total
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.networks.build import is_normalised
from cnn_mnist.runs import checkpoint
from cnn_mnist.runs.record import surroundings
from cnn_mnist.training.callbacks.throughput import Timing
from cnn_mnist.training.module import Classifier
from cnn_mnist.training.optimizers import recorded

ALWAYS = ("recipe", "batchnorm", "seed")  # in the HParams tab
USUAL = {"network": "CNN", "network.kernel_size": 3, "optimizer": "Adam"}
SKIPPED = ("_target_", "root", "fallback", "accelerator", "devices", "num_nodes")  # without influence on the metrics


def of_training(
    cfg: DictConfig,
    data: DataModule,
    model: Classifier,
    trainer: pl.Trainer,
    timing: Timing,
    chosen: Path | None,
) -> dict[str, Any]:
    """The record of a finished training; fractions in 0..1, times in seconds.

    The metrics belong to the chosen checkpoint, or to the last one without a hold-out: those stored in it, and those of
    the test. Without a checkpoint (trainer.fast_dev_run) they are the test's.
    """
    layers = architecture(model.network)
    sums = total(layers)
    content = {} if chosen is None else checkpoint.read(chosen)
    tested = {name: value.item() for name, value in trainer.callback_metrics.items() if "/" in name}
    measured = content.get("metrics", {}) | tested
    num_batches = int(trainer.num_training_batches)
    return {
        "dataset": data.dataset,
        "recipe": cfg.recipe,
        "overrides": list(cfg.get("overrides", [])),
        "seed": cfg.seed,
        "network": str(cfg.network._target_),
        "batchnorm": is_normalised(model.network),
        "precision": trainer.precision,
        "averaged_weights": any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks),  # type: ignore[attr-defined]
        "epochs": trainer.current_epoch,
        "max_epochs": trainer.max_epochs,
        "stopped_early": any(stopping.stopped_epoch for stopping in trainer.early_stopping_callbacks),
        "steps": trainer.global_step,
        "num_train": min(len(data.train), num_batches * data.batch_size),
        "num_val": data.val_size,
        "num_test": model.num_evaluated if "test/acc" in measured else 0,
        "num_parameters": sums.num_parameters,
        "num_neurons": sums.num_neurons,
        **{name: round(value, 7) for name, value in sorted(measured.items())},
        **timing._asdict(),
        "checkpoint": None if chosen is None else str(chosen.resolve()),
        "checkpoint_epoch": content.get("epoch", trainer.current_epoch - 1) + 1,
        "num_processes": trainer.world_size,
        **surroundings(trainer.strategy.root_device),
        "architecture": [layer._asdict() for layer in layers],
    }


@rank_zero_only
def fill_hparams(trainer: pl.Trainer, cfg: DictConfig, record: dict[str, Any]) -> None:
    """Add the run to TensorBoard's HParams tab: the options that set it apart, and final test metrics.

    Those are the ones that the command named and those that are not as usual: a tab of all twenty, most of which never
    change, hides the metrics. Lightning's own way would log every metric as another point of its curve.
    """
    steps = recorded(OmegaConf.to_container(cfg.model, resolve=True))  # type: ignore[arg-type]
    chosen = {"recipe": cfg.recipe, "network": str(cfg.network._target_).rpartition(".")[2]}
    chosen |= {f"network.{key}": value for key, value in cfg.network.items()}
    options = {
        str(key): value for part in (cfg.trainer, chosen, cfg.model, steps, cfg.data) for key, value in part.items()
    }
    usual = USUAL | {
        name: parameter.default
        for make in (Classifier, DataModule)
        for name, parameter in inspect.signature(make).parameters.items()
        if name not in USUAL
    }
    named = {word.lstrip("+~").partition("=")[0].removeprefix("model.") for word in cfg.overrides}
    named = {key.removeprefix("data.").removeprefix("trainer.") for key in named}
    hparams = {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in options.items()
        if key.rpartition(".")[2] not in SKIPPED and value is not None
        if key in ALWAYS or key in named or value != usual.get(key, value)
    }
    metrics = {name: record[name] for name in ("test/acc", "test/loss", "fit_seconds") if name in record}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            writer = logger.experiment._get_file_writer()
            logger.experiment.add_scalar("fit_seconds", record["fit_seconds"], trainer.global_step)
            for summary in summaries(hparams, metrics)[1:]:  # the first would fix the columns for all runs
                writer.add_summary(summary)
            logger.experiment.flush()
