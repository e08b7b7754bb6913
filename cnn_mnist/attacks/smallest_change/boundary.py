"""HopSkipJump, first called Boundary Attack++: along the decision boundary, seeing nothing but the predicted class."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist.attacks.gradient_ascent import Ascent, Progress, batch_size, unit
from cnn_mnist.attacks.projection import check_budget, length
from cnn_mnist.attacks.result import AttackResult, check_number, in_turn, is_over
from cnn_mnist.checks import examined, seeded

FIRST_PROBES, MOST_PROBES = 100, 10_000  # directions tried for an estimate of the gradient: first, and at most
FIRST_RADIUS = 0.1  # of the first estimate
GRIDS = (1, 2, 4, 7, 14, 28)  # cells along each side of the noises from which a start is chosen
NUM_STARTS = 40  # noises of each grid
HALVINGS = 20  # of a step that leads back to the right class, at most
RESERVE = 50  # predictions that a step and a bisection need, at most
FEWEST_PROBES = 10  # with fewer an estimate says nothing


def boundary(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | int,
    *,
    epsilon: float | None = None,
    queries: int = 5000,
    norm: str = "l2",
    generator: torch.Generator | None = None,
    progress: Progress = iter,
) -> AttackResult:
    """HopSkipJump: the nearest misclassified image that can be found from the predicted classes alone.

    Starts from noise of another class and goes to the boundary, by bisection on the way to the image. There the
    direction of the boundary is estimated from the classes of many small random changes; a step is taken that way, and
    the next bisection brings the image nearer. All images get the same random changes. The trace shows the distance,
    in the norm, before and after each such round; `steps` counts the predictions.

    Args:
        model: Images to logits (B, C), of which only the highest counts; unchanged afterwards.
        images: (N, C, H, W) in [0, 1].
        labels: The true classes, int64 (N,).
        epsilon: An image is done within this distance, and returned unchanged where the queries do not bring it there.
            None: as near as the queries bring it.
        queries: Predictions asked for each image, at most; the 480 that choose a start are shared by all, and not
            counted.
        norm: `linf` or `l2`.
        generator: Draws starts and changes; None: one with seed 0. The i-th image's result does not depend on how many
            there are.
        progress: Goes through the rounds, to show how far it is.

    Raises:
        ValueError: As `checks.examined`, or an option out of range.

    Source: Chen, Jordan and Wainwright 2020.
    """
    check_budget(0 if epsilon is None else epsilon, norm)
    check_number("queries", queries, 2 * RESERVE)
    generator = seeded(generator)
    with examined(model, images, labels) as (logits_of, images, labels):
        starts = _starts(images, generator)
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        with torch.no_grad():
            seen_as = torch.cat([logits_of(part).argmax(1) for part in starts.split(batch_size(images.device))])

        def attempt(left: Tensor) -> Ascent:
            walk = _Walk(logits_of, images[left], labels[left], norm)
            walk.begin(starts, seen_as)
            return walk.go(queries, epsilon, torch.Generator(generator.device).manual_seed(seed), progress)

        with torch.no_grad():
            return in_turn(logits_of, images, labels, [attempt])


def probes(number: int) -> int:
    """How many changes a round tries, 1 being the first: more and more, for better estimates nearer to the image."""
    return min(int(FIRST_PROBES * math.sqrt(number)), MOST_PROBES)


def most_rounds(queries: int) -> int:
    """More rounds than there are queries for."""
    found = 1
    while queries > 0:
        queries -= probes(found)
        found += 1
    return found


def _starts(images: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of different grain, (S, C, H, W): a class that fine noise never shows, coarse noise may."""
    size = images.shape[2:]
    drawn = []
    for cells in GRIDS:
        grid = (NUM_STARTS, images.shape[1], cells, cells)
        noise = torch.rand(grid, generator=generator, device=generator.device).to(images)
        drawn += [F.interpolate(noise, size), F.interpolate(noise.round(), size)]  # greys, and black and white
    return torch.cat(drawn)


class _Walk:
    """N images on the boundary: where each is, how far from its original, and how many predictions it has used."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, norm: str) -> None:
        self.model, self.images, self.labels, self.norm = model, images, labels, norm
        self.x = images.clone()
        self.distance = images.new_full((len(images),), math.inf)
        self.asked = torch.zeros_like(labels)
        size = images[0].numel()
        self.precision = 1 / size**1.5 if norm == "l2" else 1 / size**2  # of the bisection, as a share

    def is_wrong(self, x: Tensor, index: Tensor) -> Tensor:
        """Whether images (b, C, H, W) are misclassified, bool (b,); `index`: of which original each is a version."""
        self.asked.index_add_(0, index, torch.ones_like(index))
        size = batch_size(x.device)
        parts = zip(x.split(size), self.labels[index].split(size), strict=True)
        return torch.cat([is_over(self.model(part), labels) for part, labels in parts])

    def begin(self, starts: Tensor, seen_as: Tensor) -> None:
        """Put every image at the nearest start of another class; where there is none it stays where it is."""
        for number, (image, label) in enumerate(zip(self.images, self.labels, strict=True)):
            others = starts[seen_as != label]
            if len(others):
                far = length(others - image, self.norm)[:, 0, 0, 0]
                self.x[number] = others[far.argmin()]
                self.distance[number] = far.min()

    def go(self, queries: int, epsilon: float | None, generator: torch.Generator, progress: Progress) -> Ascent:
        """Rounds of bisection, estimate and step, until the queries are used up or every image is near enough."""
        left = self.distance.isfinite().nonzero()[:, 0]
        trace = [torch.full_like(self.distance, math.nan)]
        if len(left):
            self.bisect(left)
            trace[0][left] = self.distance[left]
        for number in progress(range(1, most_rounds(queries) + 1)):
            if epsilon is not None:
                left = left[self.distance[left] > epsilon]
            if not len(left):
                break
            counts = (queries - RESERVE - self.asked).clamp_max(probes(number))
            left = left[counts[left] >= FEWEST_PROBES]
            if not len(left):
                break
            shape = (probes(number), *self.images.shape[1:])
            draw = torch.randn if self.norm == "l2" else torch.rand
            drawn = draw(shape, generator=generator, device=generator.device).to(self.images)
            drawn = drawn if self.norm == "l2" else 2 * drawn - 1
            self.step(left, unit(drawn, drawn), counts[left].tolist(), number)
            self.bisect(left)
            trace.append(torch.full_like(self.distance, math.nan))
            trace[-1][left] = self.distance[left]
        is_far = self.distance.isinf() | (self.distance > (math.inf if epsilon is None else epsilon))
        found = torch.where(is_far.view(-1, 1, 1, 1), self.images, self.x)
        return Ascent(found, self.asked, torch.stack(trace), torch.zeros_like(is_far))

    def bisect(self, index: Tensor) -> None:
        """Bring images to the boundary, between where they are and the original."""
        x, original = self.x[index], self.images[index]
        far = length(x - original, self.norm)
        high, low = (torch.ones_like(far) if self.norm == "l2" else far), torch.zeros_like(far)
        precision = self.precision if self.norm == "l2" else (far * self.precision).clamp_max(self.precision)

        def between(share: Tensor) -> Tensor:
            if self.norm == "l2":
                return original + share * (x - original)
            return torch.minimum(torch.maximum(x, original - share), original + share)

        while True:
            middle = (high + low) / 2
            is_left = (high - low > precision) & (low < middle) & (middle < high)  # float32 may have nothing between
            todo = is_left[:, 0, 0, 0].nonzero()[:, 0]
            if not len(todo):
                break
            wrong = self.is_wrong(between(middle)[todo], index[todo]).view(-1, 1, 1, 1)
            high[todo] = torch.where(wrong, middle[todo], high[todo])
            low[todo] = torch.where(wrong, low[todo], middle[todo])
        self.x[index] = between(high)
        self.distance[index] = length(self.x[index] - original, self.norm)[:, 0, 0, 0]

    def step(self, index: Tensor, directions: Tensor, counts: list[int], number: int) -> None:
        """Estimate the direction of the boundary, and step that way.

        Each image tries as many of the directions (K, C, H, W) as it has predictions left for.
        """
        x, far = self.x[index], self.distance[index].view(-1, 1, 1, 1)
        size = x[0].numel()
        share = self.precision * (math.sqrt(size) if self.norm == "l2" else size)
        radius = torch.full_like(far, FIRST_RADIUS) if number == 1 else share * far
        estimate = torch.empty_like(x)
        for k, (place, count) in enumerate(zip(index, counts, strict=True)):  # one at a time: each tries hundreds
            tried = (x[k] + radius[k] * directions[:count]).clamp(0, 1)
            answers = self.is_wrong(tried, place.expand(len(tried))).to(x) * 2 - 1
            weights = answers if answers.min() == answers.max() else answers - answers.mean()
            estimate[k] = torch.tensordot(weights, (tried - x[k]) / radius[k], 1)
        direction = unit(estimate, x) if self.norm == "l2" else estimate.sign()
        stride, is_there = far / math.sqrt(number), torch.zeros_like(far, dtype=torch.bool)
        for _ in range(HALVINGS):
            todo = (~is_there[:, 0, 0, 0]).nonzero()[:, 0]
            if not len(todo):
                break
            candidates = (x[todo] + stride[todo] * direction[todo]).clamp(0, 1)
            wrong = self.is_wrong(candidates, index[todo])
            x[todo[wrong]] = candidates[wrong]
            is_there[todo[wrong]] = True
            stride[todo[~wrong]] /= 2
        self.x[index] = x
