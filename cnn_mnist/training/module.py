"""The LightningModule: loss, metrics, optimiser and schedule."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from cnn_mnist.data.batches import Batch, Shuffled
from cnn_mnist.intervals import ball, furthest_ahead
from cnn_mnist.network import not_finite
from cnn_mnist.networks import build
from cnn_mnist.option_types import CountOrZero, Fraction, NonNegative, Positive, Schedule
from cnn_mnist.option_types import Optimizer as OptimizerNode
from cnn_mnist.training import optimizers
from cnn_mnist.training.adversarial_training import adversarial_examples, warmed_up
from cnn_mnist.training.allocator import keep_freed_memory
from cnn_mnist.training.augmentation import augmented, cooled_down


class Classifier(pl.LightningModule):
    """Trains the network with cross-entropy, and evaluates it on the data module's `val`.

    The logged loss is the plain cross-entropy, without label smoothing. The loggers get the mean of `train/loss` over
    every `trainer.log_every_n_steps` batches; callbacks, terminal and checkpoints get the mean over the epoch.

    Args:
        batchnorm: Batch normalisation in each hidden layer of the lab report's network, or of another that offers it.
        lr: Learning rate; with a one-cycle schedule, its peak.
        schedule: None, `one_cycle` or a node, see `optimizers.make_schedule`.
        distortion: Size of the random affine distortion of training images, see `augmentation`; 0: none.
        label_smoothing: Share of each label spread over all classes (Szegedy et al. 2016).
        weight_decay: Weight decay of filters and matrices, decoupled with AdamW (Loshchilov and Hutter 2019).
        epsilon: Training to withstand changes: the largest change of a pixel; 0: ordinary training.
        attack_steps: Steps of PGD for an adversarial example that takes an image's place; 0: the image itself.
        bound_weight: Share of the loss that is the cross-entropy of the worst logits that are not ruled out within
            epsilon, see `intervals`; it grows along with epsilon.
        warmup_epochs: Epochs over which epsilon grows from 0.
        cooldown_epochs: Last epochs, over which distortion, elastic and stroke shrink to 0; 0: they stay as they are.
        network: The class of the network and its arguments, see `networks.build`; None: the lab report's network.
        num_classes: Number of classes of the data.
        optimizer: A node, see `optimizers.make_optimizer`; None: AdamW, which without weight decay is Adam.
        elastic: Size of the elastic distortion of training images, in pixels, see `augmentation`; 0: none.
        stroke: Largest change of the width of strokes in training images, see `augmentation`; 0: none.

    Raises:
        ValueError: The optimiser cannot be made; options that need each other.
    """

    def __init__(
        self,
        batchnorm: bool = False,
        lr: Positive = 1e-3,
        schedule: Schedule = None,
        distortion: Fraction = 0.0,
        label_smoothing: Fraction = 0.0,
        weight_decay: NonNegative = 0.0,
        epsilon: Fraction = 0.0,
        attack_steps: CountOrZero = 5,
        warmup_epochs: NonNegative = 3.0,
        network: Mapping[str, Any] | None = None,
        num_classes: int = 10,
        optimizer: OptimizerNode = None,
        elastic: NonNegative = 0.0,
        stroke: Fraction = 0.0,
        bound_weight: Fraction = 0.0,
        cooldown_epochs: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        if bool(epsilon) != bool((epsilon and attack_steps) or bound_weight):
            raise ValueError("model.epsilon and one of model.attack_steps and model.bound_weight need each other")
        network = dict(network or build.LAB_NETWORK)
        optimizer = dict(optimizer or optimizers.ADAMW)
        self.save_hyperparameters()
        self.distortion = distortion
        self.elastic = elastic
        self.stroke = stroke
        self.label_smoothing = label_smoothing
        self.weight_decay = weight_decay
        self.epsilon = epsilon
        self.attack_steps = attack_steps
        self.bound_weight = bound_weight
        self.warmup_epochs, self.cooldown_epochs = warmup_epochs, cooldown_epochs
        self.lr = lr
        self.schedule = schedule
        self.optimizer = optimizer
        self.network = build.build(network, batchnorm=batchnorm, num_classes=num_classes)
        self._optimizer()  # mistakes are reported before the training begins
        self.recent: list[tuple[Tensor, Tensor]] = []  # logits and labels since the loss was logged last
        self.losses: list[tuple[float, int]] = []  # of this epoch: mean loss, and number of batches
        self.before: dict[str, Tensor] = {}  # the callbacks' metrics when the epoch began
        self.num_evaluated = 0
        self.eval_loss = MeanMetric(nan_strategy="disable")
        self.train_accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        self.eval_accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) for images float32 (B, 1, 28, 28) in [0, 1]."""
        logits: Tensor = self.network(images)
        return logits

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, and the schedule."""
        optimizer = self._optimizer()
        if self.schedule is None:
            return optimizer
        num_steps = int(self.trainer.estimated_stepping_batches)
        num_epochs = int(self.trainer.max_epochs or 1)
        schedule = optimizers.make_schedule(
            self.schedule, optimizer, lr=self.lr, num_steps=num_steps, num_epochs=num_epochs
        )
        return {"optimizer": optimizer, "lr_scheduler": schedule}  # type: ignore[return-value]

    def _optimizer(self) -> Optimizer:
        return optimizers.make_optimizer(self.optimizer, self.parameters(), lr=self.lr, weight_decay=self.weight_decay)

    def on_fit_start(self) -> None:
        """Keep freed memory for the next step."""
        keep_freed_memory()

    def on_train_start(self) -> None:
        """Start a resumed run with its next epoch; with `max_steps` Lightning would repeat the last one."""
        loop = self.trainer.fit_loop
        progress = loop.epoch_progress.current
        progress.completed = progress.processed  # type: ignore[attr-defined]
        loop.epoch_loop.restarting = False  # runs are resumed only at the end of an epoch

    def on_train_epoch_start(self) -> None:
        """Give the sampler the epoch: Lightning's own count is one behind after a checkpoint of an epoch's end."""
        sampler = self.trainer.train_dataloader.sampler  # type: ignore[union-attr]
        if isinstance(sampler, Shuffled):
            sampler.set_epoch(self.current_epoch)
        self.losses.clear()
        self.recent.clear()
        self.before = dict(self.trainer.callback_metrics)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean cross-entropy of a batch; if asked for of distorted images, of adversarial examples, with bounds."""
        images, labels = batch
        torch.manual_seed(self._seed(self._num_batches(batch_idx), self.global_rank, 1))  # of dropout and the like
        if not (self.distortion or self.elastic or self.stroke or self.epsilon):
            return self._cross_entropy(self(images), labels)
        generator = self._generator(batch_idx)
        share = cooled_down(int(self.trainer.max_epochs or 1) - self._epoch(batch_idx), self.cooldown_epochs)
        sizes = {name: share * getattr(self, name) for name in ("distortion", "elastic", "stroke")}
        images = augmented(images, **sizes, generator=generator)
        if self.epsilon:
            return self._robust_loss(images, labels, generator, self._epoch(batch_idx))
        return self._cross_entropy(self(images), labels)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.recent.append((logits.detach(), labels))
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def _epoch(self, batch_idx: int) -> float:
        """How many epochs came before this batch."""
        return self._num_batches(batch_idx) / int(self.trainer.num_training_batches)

    def _num_batches(self, batch_idx: int) -> int:
        """The number of batches before this one; not of steps, of which there are fewer with accumulated gradients."""
        return self.current_epoch * int(self.trainer.num_training_batches) + batch_idx

    def _generator(self, batch_idx: int) -> torch.Generator:
        """Seeded with seed, batch and process alone, so that a resumed run draws the same."""
        return torch.Generator().manual_seed(self._seed(self._num_batches(batch_idx), self.global_rank))

    def _seed(self, *place: int) -> int:
        seed = self.trainer.datamodule.seed  # type: ignore[attr-defined]
        return int(np.random.SeedSequence((seed, *place)).generate_state(1)[0])

    def _robust_loss(self, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: float) -> Tensor:
        """The cross-entropy of adversarial examples, and of the worst logits within the bounds."""
        epsilon = warmed_up(self.epsilon, epoch, self.warmup_epochs)
        attacked = images
        if self.attack_steps:
            attacked = adversarial_examples(
                self.network, images, labels, epsilon=epsilon, steps=self.attack_steps, generator=generator
            )
        if not self.bound_weight:
            return self._cross_entropy(self(attacked), labels)
        logits = self.network(ball(images, epsilon, attacked))
        loss = self._cross_entropy(logits.examples, labels)
        share, worst = self.bound_weight * epsilon / self.epsilon, furthest_ahead(logits, labels)
        return (1 - share) * loss + share * F.cross_entropy(worst.float(), labels)

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Log the loss when it is due, and once an epoch the accuracy, both measured before the update."""
        is_last = self.trainer.is_last_batch or self.trainer.fit_loop.epoch_loop.done
        if is_last or (batch_idx + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            logits, labels = map(torch.cat, zip(*self.recent, strict=True))
            loss = self.trainer.strategy.reduce(F.cross_entropy(logits, labels), reduce_op="mean").item()
            if not math.isfinite(loss):
                is_finite = [math.isfinite(F.cross_entropy(*part)) for part in self.recent]  # of another process, all
                first = is_finite.index(False) + 1 if False in is_finite else len(is_finite)
                raise ValueError(self._diverged(f"train/loss is {loss}", self.global_step - len(is_finite) + first))
            self.losses.append((loss, len(self.recent)))
            self.recent.clear()
            self.train_accuracy.update(logits, labels)
            self._log({"train/loss": loss})
        if is_last:
            self._log({"train/acc": self._take(self.train_accuracy)})
            self._tell({"train/loss": mean_over_batches(self.losses)})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the weights are finite, and store the metrics of this epoch.

        Raises:
            ValueError: The weights contain NaN or infinity.
        """
        if name := not_finite(self):
            raise ValueError(self._diverged(f"{name} is not finite", self.global_step))
        known = self.trainer.callback_metrics.items()
        checkpoint["metrics"] = {
            name: value.item() for name, value in known if "/" in name and value is not self.before.get(name)
        }

    def _diverged(self, what: str, step: int) -> str:
        rate = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        return f"{what} at step {step}, with a learning rate of {rate:g}: lower model.lr={self.lr:g}"

    def on_train_epoch_end(self) -> None:
        """Write the logs before the checkpoint of the same epoch."""
        for logger in self.loggers:
            logger.save()

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Evaluate a batch; returns its logits (B, C) for the callbacks."""
        images, labels = batch
        logits: Tensor = self(images)
        self.eval_loss.update(F.cross_entropy(logits, labels, reduction="none"))
        self.eval_accuracy.update(logits, labels)
        self.num_evaluated += len(labels)
        return logits

    def on_validation_epoch_start(self) -> None:
        """Reset the number of images."""
        self.num_evaluated = 0

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy under the name of the data they were measured on."""
        name = self.trainer.datamodule.val_name  # type: ignore[attr-defined]
        metrics = self._measured(name)
        if not math.isfinite(loss := metrics[f"{name}/loss"]):
            raise ValueError(self._diverged(f"{name}/loss is {loss}", self.global_step))
        self._log(metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The same as `validation_step`."""
        return self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log loss and accuracy, unless the test curve already ends with them."""
        metrics = self._measured("test")
        self.log_dict(metrics, logger=False, sync_dist=self.trainer.world_size > 1)  # the same in all processes
        count = torch.tensor(float(self.num_evaluated), device=self.device)
        self.num_evaluated = int(self.trainer.strategy.reduce(count, reduce_op="sum").item())
        if self.trainer.datamodule.val_name != "test":  # type: ignore[attr-defined]
            for logger in self.loggers:  # after the last step that a resumed run keeps; it belongs to no epoch
                logger.log_metrics(metrics, step=self.global_step + 1)

    def _measured(self, name: str) -> dict[str, float]:
        return {f"{name}/loss": self._take(self.eval_loss), f"{name}/acc": self._take(self.eval_accuracy)}

    @staticmethod
    def _take(metric: Metric) -> float:
        """The value of a metric to the seven digits that float32 holds; the metric is reset."""
        value: float = metric.compute().item()
        metric.reset()
        return round(value, 7)

    def _log(self, metrics: dict[str, float]) -> None:
        """Pass metrics to callbacks and, at the current step, to loggers.

        Lightning's own `log` counts the end of an epoch one step short.
        """
        self._tell(metrics)
        for logger in self.loggers:
            logger.log_metrics(metrics | {"epoch": self.current_epoch}, step=self.global_step)

    def _tell(self, metrics: dict[str, float]) -> None:
        """Pass metrics to callbacks."""
        self.trainer.callback_metrics.update(
            {name: torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()}
        )


def mean_over_batches(points: Sequence[tuple[float, int]]) -> float:
    """The mean over all batches, from means over some of them; to seven digits."""
    return round(sum(mean * number for mean, number in points) / sum(number for _, number in points), 7)
