"""APGD: projected gradient descent that chooses its own step sizes."""

import functools
from typing import Literal

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.autoattack.idle_units import without_idle_units
from cnn_mnist.attacks.gradient_ascent import Ascent, Objective, ObjectiveValue, Progress, ascend
from cnn_mnist.attacks.pgd import log_odds
from cnn_mnist.attacks.projection import BALLS, Ball, check_budget
from cnn_mnist.attacks.result import AttackResult, check_number, confirmed, in_turn, is_over, lead, predict
from cnn_mnist.checks import examined, seeded

MOMENTUM = 0.75  # share of the new step; the rest repeats the last one
RISES = 0.75  # share of the steps of a period in which the cost must rise for the step size to stay
NUM_TARGETS = 9  # classes at most that `loss="targeted"` aims at
Loss = Literal["ce", "dlr", "targeted"]


def apgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | int,
    *,
    epsilon: float,
    loss: Loss = "ce",
    steps: int = 100,
    restarts: int = 1,
    norm: str = "linf",
    generator: torch.Generator | None = None,
    progress: Progress = iter,
) -> AttackResult:
    """Auto-PGD: steps with momentum within a ball, twice its radius at first and halved where they no longer help.

    Every period ends with a check of each image: where the cost rose in too few of its steps, or neither the step size
    nor the highest cost has changed since the last check, the step size is halved and the search goes on from the best
    image so far. An image is done at its first success.

    Args:
        model: Images to logits (B, C); unchanged afterwards.
        images: (N, 1, H, W) in [0, 1].
        labels: The true classes, int64 (N,).
        epsilon: Radius of the ball: the largest change of a pixel (`linf`, 0..1), or of the L2 norm (`l2`).
        loss: What is increased. `ce`: the cross-entropy; `dlr`: the difference of logits ratio; `targeted`: the same
            ratio towards each of the nine likeliest wrong classes in turn. Neither ratio changes when all logits are
            multiplied by a number.
        steps: Steps from each start.
        restarts: Starts, for `targeted` towards each class.
        norm: `linf` or `l2`.
        generator: Of the starts, on the CPU; the i-th image's do not depend on how many there are. None: one with
            seed 0.
        progress: Goes through the steps of each start, to show how far it is.

    Raises:
        ValueError: As `checks.examined`, or an option out of range.

    Source: Croce and Hein 2020, "Reliable evaluation of adversarial robustness".
    """
    check_budget(epsilon, norm)
    if loss not in ("ce", "dlr", "targeted"):
        raise ValueError(f"loss must be ce, dlr or targeted, got {loss}")
    check_number("steps", steps, 1)
    check_number("restarts", restarts, 1)
    generator = seeded(generator)
    with examined(model, images, labels) as (logits_of, images, labels):
        ball = BALLS[norm](images, epsilon)
        targets = likeliest_wrong(predict(logits_of, images), labels) if loss == "targeted" else None
        reduced = without_idle_units(logits_of, images) or logits_of
        num_starts = (restarts if targets is None else restarts * targets.shape[1]) if epsilon > 0 else 0
        seeds = torch.randint(2**62, (num_starts,), generator=generator, device=generator.device).tolist()

        def attempt(left: Tensor, number: int, seed: int) -> Ascent:
            aim = None if targets is None else targets[left, number // restarts]
            of_class = log_odds if loss == "ce" else functools.partial(_logit_ratio, target=aim)
            start = ball.random_start(torch.Generator(generator.device).manual_seed(seed))[left]
            objective = of_class(reduced, labels[left])

            def judge(x: Tensor, index: Tensor) -> ObjectiveValue:
                value = objective(x, index)
                assert value.is_done is not None
                return value._replace(is_done=confirmed(logits_of, x, labels[left[index]], value.is_done))

            climber = _Climber(judge, start, ball, left, epsilon=epsilon, steps=steps)
            return ascend(climber.judge, start, steps=steps, move=climber.move, progress=progress)

        attempts = [functools.partial(attempt, number=number, seed=seed) for number, seed in enumerate(seeds)]
        return in_turn(logits_of, images, labels, attempts)


def likeliest_wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """The wrong classes with the highest logits, highest first, at most nine: int64 (N, K)."""
    wrong = logits.scatter(1, labels[:, None], -torch.inf)
    return wrong.topk(min(NUM_TARGETS, logits.shape[1] - 1), 1).indices


def _logit_ratio(model: nn.Module, labels: Tensor, target: Tensor | None = None) -> Objective:
    """How far a wrong class is ahead of the label, as a share of a spread of the logits.

    Without a target the likeliest wrong class, and the spread between the highest and the third logit; with one, that
    between the highest and the mean of the third and the fourth. Networks with fewer classes have no such spread: for
    them it is the difference itself.
    """

    def judge(x: Tensor, index: Tensor) -> ObjectiveValue:
        logits, label = model(x), labels[index][:, None]
        if target is None:
            ahead = lead(logits, labels[index])
        else:
            ahead = (logits.gather(1, target[index][:, None]) - logits.gather(1, label))[:, 0]
        highest = logits.sort(1, descending=True).values
        others = slice(2, 3 if target is None else 4)
        if highest.shape[1] >= others.stop:
            ahead = ahead / (highest[:, 0] - highest[:, others].mean(1) + 1e-12)
        return ObjectiveValue(ahead, is_over(logits, labels[index]))

    return judge


class _Climber:
    """The state of N images: the best one so far, its gradient, the last one, and a step size for each.

    Args:
        objective: The cost to be increased.
        start: Images to start from, (N, 1, H, W).
        ball: Where they may move.
        index: Their indices among the images of the ball.
        epsilon: Radius of the ball.
        steps: Number of steps.
    """

    def __init__(
        self, objective: Objective, start: Tensor, ball: Ball, index: Tensor, *, epsilon: float, steps: int
    ) -> None:
        self.objective, self.ball, self.index = objective, ball, index
        self.checks = checks(steps)
        self.previous, self.best, self.gradient = start.clone(), start.clone(), torch.zeros_like(start)
        self.step_size = start.new_full((len(start), 1, 1, 1), 2 * epsilon)
        self.cost, self.highest, self.checked = (start.new_full((len(start),), -torch.inf) for _ in range(3))
        self.rises, self.moves = (torch.zeros(len(start), dtype=torch.long, device=start.device) for _ in range(2))
        self.is_better, self.was_halved = (torch.zeros_like(self.rises, dtype=torch.bool) for _ in range(2))

    def judge(self, x: Tensor, index: Tensor) -> ObjectiveValue:
        """The cost, and what it says about the last step."""
        value = self.objective(x, index)
        cost = value.cost.detach()
        self.rises[index] += cost > self.cost[index]
        self.is_better[index] = cost > self.highest[index]
        self.highest[index] = torch.maximum(cost, self.highest[index])
        self.cost[index] = cost
        assert value.is_done is not None
        return value._replace(score=cost.masked_fill(value.is_done, torch.inf))

    def move(self, x: Tensor, gradient: Tensor, index: Tensor) -> Tensor:
        """The next images."""
        is_better = self.is_better[index].view(-1, 1, 1, 1)
        self.best[index] = torch.where(is_better, x, self.best[index])
        self.gradient[index] = torch.where(is_better, gradient, self.gradient[index])
        moves = int(self.moves[index[0]])  # the same for all that are left
        if moves in self.checks:
            x, gradient = self._check(x, gradient, index, moves)
        step = self.step_size[index] * self.ball.direction(gradient, x)
        there = self.index[index]
        stepped = self.ball.project(x + step, there)
        if moves:
            momentum = MOMENTUM * (stepped - x) + (1 - MOMENTUM) * (x - self.previous[index])
            stepped = self.ball.project(x + momentum, there)
        self.previous[index] = x
        self.moves[index] += 1
        return stepped

    def _check(self, x: Tensor, gradient: Tensor, index: Tensor, moves: int) -> tuple[Tensor, Tensor]:
        """Halve the step size where it no longer helps, and go back to the best image."""
        has_stalled = ~self.was_halved[index] & (self.checked[index] >= self.highest[index])
        is_halved = (self.rises[index] <= RISES * self.checks[moves]) | has_stalled
        self.was_halved[index], self.checked[index], self.rises[index] = is_halved, self.highest[index], 0
        wide = is_halved.view(-1, 1, 1, 1)
        self.step_size[index] = torch.where(wide, self.step_size[index] / 2, self.step_size[index])
        return torch.where(wide, self.best[index], x), torch.where(wide, self.gradient[index], gradient)


def checks(steps: int) -> dict[int, int]:
    """The steps after which step sizes are checked, and the length of the period that ends there.

    The first period is 22 % of all steps, each later one 3 % of them shorter than the one before, but at least 6 %.
    """
    period, shorter, shortest = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    found, step = {}, period
    while step < steps:
        found[step] = period
        period = max(period - shorter, shortest)
        step += period
    return found
