"""FAB: the fast adaptive boundary attack, towards one class at a time."""

import functools

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.autoattack.apgd import likeliest_wrong
from cnn_mnist.attacks.autoattack.idle_units import without_idle_units
from cnn_mnist.attacks.gradient_ascent import Ascent, ObjectiveValue, Progress, ascend
from cnn_mnist.attacks.projection import check_budget, length, onto_hyperplane
from cnn_mnist.attacks.result import AttackResult, check_number, confirmed, in_turn, is_over, predict
from cnn_mnist.checks import examined

OVERSHOOT = 1.05  # of each step over the distance to the boundary
TOWARDS_ORIGINAL = 0.1  # at most: the share of the step that starts from the original image
BACK = 0.9  # of the way from the original image, where an image is misclassified but too far away


def fab(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | int,
    *,
    epsilon: float,
    steps: int = 100,
    norm: str = "linf",
    progress: Progress = iter,
) -> AttackResult:
    """The fast adaptive boundary attack: along the linearised boundary with each class, as near as the image allows.

    A step goes to the boundary from where the search is, and a little from the original image as well, which keeps it
    near. It does not look at the budget on the way, and so finds what attacks that climb to the edge of the ball miss.
    Nine classes at most are aimed at, the likeliest first; an image is done once it is misclassified within the budget.
    The boundary is linearised at the image that the network was evaluated on, before the step back, where the
    reference evaluates the network once more.

    Args:
        model: Images to logits (B, C); unchanged afterwards.
        images: (N, 1, H, W) in [0, 1].
        labels: The true classes, int64 (N,).
        epsilon: Largest change of a pixel (`linf`, 0..1), or of the L2 norm (`l2`).
        steps: Steps towards each class.
        norm: `linf` or `l2`.
        progress: Goes through the steps of each class, to show how far it is.

    Raises:
        ValueError: As `checks.examined`, or an option out of range.

    Source: Croce and Hein 2020, "Minimally distorted adversarial examples"; the targeted form after "Reliable
    evaluation of adversarial robustness".
    """
    check_budget(epsilon, norm)
    check_number("steps", steps, 1)
    with examined(model, images, labels) as (logits_of, images, labels):
        targets = likeliest_wrong(predict(logits_of, images), labels)
        reduced = without_idle_units(logits_of, images) or logits_of

        def attempt(left: Tensor, number: int) -> Ascent:
            search = _Search(logits_of, reduced, images[left], labels[left], targets[left, number], epsilon, norm)
            return ascend(search.judge, images[left], steps=steps, move=search.move, progress=progress)

        num_attempts = targets.shape[1] if epsilon > 0 else 0
        attempts = [functools.partial(attempt, number=number) for number in range(num_attempts)]
        return in_turn(logits_of, images, labels, attempts)


class _Search:
    """The way of N images to the boundary between the label and the target."""

    def __init__(
        self,
        model: nn.Module,
        reduced: nn.Module,
        images: Tensor,
        labels: Tensor,
        targets: Tensor,
        epsilon: float,
        norm: str,
    ) -> None:
        self.model, self.reduced = model, reduced
        self.images, self.labels, self.targets = images, labels, targets
        self.epsilon, self.norm = epsilon, norm
        self.ahead = images.new_zeros(len(images))  # of the target, before the label
        self.is_wrong = torch.zeros_like(labels, dtype=torch.bool)

    def judge(self, x: Tensor, index: Tensor) -> ObjectiveValue:
        """How far the target is ahead of the label; an image is kept only within the budget."""
        logits, label = self.reduced(x), self.labels[index]
        ahead = (logits.gather(1, self.targets[index][:, None]) - logits.gather(1, label[:, None]))[:, 0]
        is_wrong, far = is_over(logits, label), length(x.detach() - self.images[index], self.norm).flatten()
        self.ahead[index], self.is_wrong[index] = ahead.detach(), is_wrong
        is_done = confirmed(self.model, x, label, is_wrong & (far <= self.epsilon))
        return ObjectiveValue(ahead, is_done, score=torch.zeros_like(far).masked_fill(~is_done, -torch.inf))

    def move(self, x: Tensor, gradient: Tensor, index: Tensor) -> Tensor:
        """To the boundary, from the image itself and from the original."""
        original = self.images[index]
        there = torch.where(self.is_wrong[index].view(-1, 1, 1, 1), original + BACK * (x - original), x)
        both, normals = torch.cat([there, original]), gradient.repeat(2, 1, 1, 1)
        missing = -self.ahead[index].repeat(2) - (normals * (both - x.repeat(2, 1, 1, 1))).sum((1, 2, 3))
        step = onto_hyperplane(both, normals, missing, self.norm)
        far = length(step, self.norm).flatten().clamp_min(1e-8)
        share = (far[: len(x)] / (far[: len(x)] + far[len(x) :])).clamp_max(TOWARDS_ORIGINAL).view(-1, 1, 1, 1)
        near, farther = (both + OVERSHOOT * step).chunk(2)
        return ((1 - share) * near + share * farther).clamp(0, 1)
