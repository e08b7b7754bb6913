"""Accuracy under attack after every epoch, and a warning if adversarial training collapses."""

import warnings

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from cnn_mnist import attacks
from cnn_mnist.analysis.certificate import is_proven
from cnn_mnist.attacks.pgd import default_step_size
from cnn_mnist.checks import ModelWarning
from cnn_mnist.option_types import Count, Fraction

COLLAPSE = 0.3  # by how much the accuracy under one step may exceed that under several


class RobustAccuracy(Callback):
    """Accuracy under PGD, and under one step of the same size, on a few images of `val` after every epoch.

    For a network that is trained with bounds, also the certified accuracy: the share of images that are proven.

    If many images withstand one step and few withstand several, the network has learnt to mask its gradient.
    """

    def __init__(self, epsilon: Fraction = 0.3, steps: Count = 20, num_images: Count = 500) -> None:
        self.epsilon = epsilon
        self.steps = steps
        self.num_images = num_images

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Attack, log, and warn of a collapse; in one process, which tells the others."""
        metrics = self._measured(trainer, pl_module) if trainer.is_global_zero else {}
        metrics = trainer.strategy.broadcast(metrics)
        for key, value in metrics.items():
            trainer.callback_metrics[key] = torch.tensor(value, dtype=torch.float64)
        for logger in trainer.loggers:
            logger.log_metrics(metrics | {"epoch": trainer.current_epoch}, step=trainer.global_step)

    def _measured(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        name, val = trainer.datamodule.val_name, trainer.datamodule.val  # type: ignore[attr-defined]
        images, labels = (tensor.to(pl_module.device) for tensor in val[val.evenly_spaced(self.num_images)])
        one_step = attacks.fgsm(pl_module, images, labels, epsilon=self.epsilon)
        several = attacks.pgd(
            pl_module,
            images,
            labels,
            epsilon=self.epsilon,
            step_size=default_step_size(None, self.epsilon, self.steps),
            steps=self.steps,
            generator=torch.Generator().manual_seed(0),
        )
        fgsm_acc, robust_acc = (1 - result.success.double().mean().item() for result in (one_step, several))
        metrics = {f"{name}/fgsm_acc": round(fgsm_acc, 7), f"{name}/robust_acc": round(robust_acc, 7)}
        is_warm = trainer.current_epoch + 1 > getattr(pl_module, "warmup_epochs", 0)
        is_adversarial = getattr(pl_module, "epsilon", 0) and getattr(pl_module, "attack_steps", 0)
        if is_adversarial and is_warm and fgsm_acc - robust_acc > COLLAPSE:
            message = (
                f"adversarial training has collapsed: accuracy {fgsm_acc:.1%} under one step, {robust_acc:.1%} under "
                f"{self.steps}: raise model.attack_steps or model.warmup_epochs"
            )
            warnings.warn(message, ModelWarning, stacklevel=2)
        if getattr(pl_module, "bound_weight", 0):
            assert isinstance(pl_module.network, torch.nn.Module)
            proven = is_proven(pl_module.network, images, labels, epsilon=self.epsilon).double().mean().item()
            metrics[f"{name}/certified_acc"] = round(proven, 7)
        return metrics
