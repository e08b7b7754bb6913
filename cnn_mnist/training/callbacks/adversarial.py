"""The lab report's attacks at the end of training (lab report, section 3.3)."""

import pytorch_lightning as pl
import torch

from cnn_mnist import attacks
from cnn_mnist.figures import adversarial as draw
from cnn_mnist.figures.canvas import cost_curves
from cnn_mnist.option_types import Count, NonNegative, Seed
from cnn_mnist.training.callbacks.picture_callback import PictureCallback, is_due, show

NUM_ATTACKED = 10  # images, each with every target


class Adversarial(PictureCallback):
    """The lab report's three attacks on test images of each class, with their cost, after the last epoch.

    The targeted attack takes `steps` steps with the given `beta`; the other two end by themselves, after twice as many
    steps at most.
    """

    def __init__(self, steps: Count = 60, beta: NonNegative = 6.5, seed: Seed = 0) -> None:
        self.steps = steps
        self.beta = beta
        self.seed = seed

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Attack and draw."""
        if not is_due(trainer, trainer.max_epochs or 1):
            return
        network, device = pl_module, pl_module.device
        test = trainer.datamodule.test  # type: ignore[attr-defined]
        images, labels = test[test.of_each_class(test.num_classes)]
        target = torch.arange(test.num_classes)
        names = [f"as {c}" for c in target.tolist()]

        generator = torch.Generator().manual_seed(self.seed)
        made = attacks.non_targeted(network, target, steps=2 * self.steps, step_size=0.1, generator=generator).cpu()
        show(trainer, "adversarial/non_targeted", draw.fooling_images(made))
        show(trainer, "adversarial/non_targeted/cost", cost_curves(made.trace, names, "logit of the class"))

        row, aim = (labels[:NUM_ATTACKED, None] != target).nonzero(as_tuple=True)
        turned = attacks.targeted(
            network, images[row].to(device), aim.to(device), beta=self.beta, steps=self.steps, step_size=0.1
        ).cpu()
        shown = images[:NUM_ATTACKED], labels[:NUM_ATTACKED]
        show(trainer, "adversarial/targeted", draw.grid_of_targets(*shown, turned, row, num_classes=test.num_classes))
        show(trainer, "adversarial/targeted/cost", draw.mean_costs(turned))

        source = labels.roll(-1)  # the next class's image for each target
        learnt = attacks.noise(network, images[source].to(device), target.to(device), steps=2 * self.steps).cpu()
        title = "An image, the noise learnt for it, and their sum"
        show(trainer, "adversarial/noise", draw.sums(images[source], labels[source], learnt, title))
        show(trainer, "adversarial/noise/cost", cost_curves(learnt.trace, names, "logit of the target"))
