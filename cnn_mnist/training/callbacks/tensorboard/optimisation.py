"""The learning rate and the norm of the gradient."""

import pytorch_lightning as pl
from pytorch_lightning.utilities import grad_norm
from torch.optim import Optimizer

from cnn_mnist.training.callbacks.picture_callback import PictureCallback, writers


class Optimisation(PictureCallback):
    """The learning rate and the gradient's L2 norm, every `trainer.log_every_n_steps` steps and at an epoch's end."""

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Write both where they are due."""
        step = trainer.global_step + 1
        is_due = step % trainer.log_every_n_steps == 0 or trainer.is_last_batch  # type: ignore[attr-defined]
        found = writers(trainer) if is_due else []
        norm = grad_norm(pl_module, 2)["grad_2.0_norm_total"] if found else 0
        for writer in found:
            writer.add_scalar("optimisation/learning_rate", optimizer.param_groups[0]["lr"], step)
            writer.add_scalar("optimisation/gradient_norm", norm, step)
