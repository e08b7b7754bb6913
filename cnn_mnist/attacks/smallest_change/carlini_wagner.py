"""Carlini and Wagner's attack: the smallest L2 change with which an image is misclassified."""

import math

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.gradient_ascent import Ascent, ObjectiveValue, Progress, ascend
from cnn_mnist.attacks.result import AttackResult, check_number, conclude, is_over, lead, predict
from cnn_mnist.checks import examined

BETAS, TINY = (0.9, 0.999), 1e-8  # Adam's, with which the attack is defined
EDGE = 0.999999  # grey values are that far from where their hyperbolic tangent would be infinite
TOLERANCE, LOOKS = 1e-4, 10  # a search ends when a tenth of its steps lowers the cost by less than this share


def carlini_wagner(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | int,
    *,
    targeted: bool = False,
    steps: int = 200,
    searches: int = 9,
    step_size: float = 0.05,
    first_weight: float = 0.1,
    confidence: float = 0.0,
    progress: Progress = iter,
) -> AttackResult:
    """The smallest change in the L2 norm, by Adam: squared distance plus a weight times how far the label is ahead.

    The weight is found by bisection for each image: larger after a search without success, smaller after one with it.
    The search runs over the inverse hyperbolic tangent of the grey values, which need no bounds there. Of all images
    on the way, the nearest that is misclassified is kept; an image for which there is none, or that is misclassified
    before the attack, is returned unchanged.

    Args:
        model: Images to logits (B, C); unchanged afterwards.
        images: (N, 1, H, W) in [0, 1].
        labels: The true classes, int64 (N,); with `targeted`, the classes to reach.
        targeted: Whether to go towards `labels` instead of away from them.
        steps: Steps of Adam at most in each search; one ends early where it stops improving.
        searches: Searches, each with a weight of its own.
        step_size: Adam's learning rate, in units of the inverse hyperbolic tangent.
        first_weight: Weight of the first search.
        confidence: How far ahead, in logits, the wrong class must be at the end.
        progress: Goes through the steps of each search, to show how far it is.

    Raises:
        ValueError: As `checks.examined`, or an option out of range.

    Source: Carlini and Wagner 2017.
    """
    for name, count in (("steps", steps), ("searches", searches)):
        check_number(name, count, 1)
    for name, value in (("step_size", step_size), ("first_weight", first_weight)):
        check_number(name, value, 1e-12)
    check_number("confidence", confidence, 0)
    with examined(model, images, labels) as (logits_of, given, labels):
        images = given.to(torch.promote_types(given.dtype, torch.float32))  # half precision knows no edge so near to 1
        start = ((2 * images - 1) * EDGE).atanh()
        search = _Search(logits_of, images, labels, targeted, first_weight, confidence)
        taken, traces = torch.zeros_like(labels), []
        for _ in range(searches):
            search.begin(steps, step_size)
            climbed = ascend(search.judge, start, steps=steps, move=search.move, progress=progress)
            taken += climbed.steps
            traces.append(climbed.trace)
            search.bisect()
        found = Ascent(
            search.nearest.to(given.dtype), taken, torch.cat(traces), climbed.zero_gradient & search.distance.isinf()
        )
        return conclude(logits_of, given, found, labels, targeted=targeted)


def _grey_values(w: Tensor) -> Tensor:
    return (w.tanh() + 1) / 2


class _Search:
    """The nearest misclassified version of N images so far, and the weights between which each image's lies."""

    def __init__(
        self, model: nn.Module, images: Tensor, labels: Tensor, targeted: bool, weight: float, confidence: float
    ) -> None:
        self.model, self.images, self.labels, self.targeted = model, images, labels, targeted
        self.confidence, self.centre = confidence, _grey_values(((2 * images - 1) * EDGE).atanh())
        self.nearest = images.clone()
        self.distance = images.new_full((len(images),), math.inf)  # squared, of the nearest
        self.weight = torch.full_like(self.distance, weight)
        self.distance[is_over(predict(model, images), labels, targeted)] = 0
        self.low, self.high = torch.zeros_like(self.weight), torch.full_like(self.weight, math.inf)

    def begin(self, steps: int, step_size: float) -> None:
        """Before each search."""
        self.every, self.step_size = max(steps // LOOKS, 1), step_size
        self.mean, self.square = torch.zeros_like(self.images), torch.zeros_like(self.images)
        self.moves = torch.zeros_like(self.labels)
        self.lowest = torch.full_like(self.distance, math.inf)  # cost since this search began
        self.before = self.lowest.clone()  # the same when it was looked at last
        self.is_found = torch.zeros_like(self.labels, dtype=torch.bool)

    def judge(self, w: Tensor, index: Tensor) -> ObjectiveValue:
        """Minus the cost; the nearest misclassified image is kept on the way."""
        x, labels = _grey_values(w), self.labels[index]
        logits = self.model(x)
        distance = (x - self.centre[index]).square().sum((1, 2, 3))
        ahead = -lead(logits, labels) if self.targeted else lead(logits, labels)
        cost = distance + self.weight[index] * (self.confidence - ahead).clamp_min(0)
        seen, far = x.detach(), distance.detach()
        is_wrong = is_over(logits, labels, self.targeted) & (ahead.detach() >= self.confidence)
        self.is_found[index] |= is_wrong
        is_nearer = is_wrong & (far < self.distance[index])
        self.nearest[index[is_nearer]], self.distance[index[is_nearer]] = seen[is_nearer], far[is_nearer]
        return ObjectiveValue(-cost, self._has_stalled(cost.detach(), index))

    def _has_stalled(self, cost: Tensor, index: Tensor) -> Tensor:
        """Whether each image's search has stopped improving; looked at after every tenth of the steps."""
        lowest = self.lowest[index] = torch.minimum(self.lowest[index], cost)
        moves = int(self.moves[index[0]])  # the same for all that are left
        if not moves or moves % self.every:
            return torch.zeros_like(cost, dtype=torch.bool)
        has_stalled = lowest > (1 - TOLERANCE) * self.before[index]
        self.before[index] = lowest
        return has_stalled

    def move(self, w: Tensor, gradient: Tensor, index: Tensor) -> Tensor:
        """A step of Adam."""
        self.moves[index] += 1
        moves = int(self.moves[index[0]])
        slow, slower = BETAS
        self.mean[index] = slow * self.mean[index] + (1 - slow) * gradient
        self.square[index] = slower * self.square[index] + (1 - slower) * gradient.square()
        mean, square = self.mean[index] / (1 - slow**moves), self.square[index] / (1 - slower**moves)
        return w + self.step_size * mean / (square.sqrt() + TINY)

    def bisect(self) -> None:
        """After each search: the next weight."""
        self.high = torch.where(self.is_found, torch.minimum(self.high, self.weight), self.high)
        self.low = torch.where(self.is_found, self.low, torch.maximum(self.low, self.weight))
        self.weight = torch.where(self.high.isinf(), 10 * self.weight, (self.low + self.high) / 2)
