"""Square: random search with squares, which looks at logits alone and needs no gradient."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.autoattack.evaluation import Evaluation, Window
from cnn_mnist.attacks.gradient_ascent import Ascent, Progress, batch_size, l2
from cnn_mnist.attacks.projection import check_budget
from cnn_mnist.attacks.result import AttackResult, check_number, confirmed, in_turn, lead
from cnn_mnist.checks import examined, seeded

FIRST_SHARE = 0.8  # of the image that the first squares cover
HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which they cover half as much
TILES = 5  # along each side of the image, of the L2 attack's start


def square(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | int,
    *,
    epsilon: float,
    queries: int = 5000,
    norm: str = "linf",
    generator: torch.Generator | None = None,
    progress: Progress = iter,
) -> AttackResult:
    """The square attack: change a random square, and keep the change where it brings the label's logit down.

    A search over what the network answers, which a masked gradient cannot mislead. All images get the same squares;
    each keeps its own. An image is done at its first success. The trace shows how far the likeliest wrong class is
    ahead of the label, in logits.

    Args:
        model: Images to logits (B, C); unchanged afterwards. Of convolutions, pools and the like, only the part that a
            square can reach is computed again.
        images: (N, C, H, W) in [0, 1].
        labels: The true classes, int64 (N,).
        epsilon: Largest change of a pixel (`linf`, 0..1), or of the L2 norm (`l2`).
        queries: Changes tried on each image.
        norm: `linf` or `l2`.
        generator: Draws start and squares; None: one with seed 0. The i-th image's result does not depend on how many
            there are.
        progress: Goes through the queries, to show how far it is.

    Raises:
        ValueError: As `checks.examined`, or an option out of range.

    Source: Andriushchenko, Croce, Flammarion and Hein 2020.
    """
    check_budget(epsilon, norm)
    check_number("queries", queries, 1)
    generator = seeded(generator)
    seeds = torch.randint(2**62, (2,), generator=generator, device=generator.device).tolist()
    for_start, for_squares = (torch.Generator(generator.device).manual_seed(seed) for seed in seeds)
    kind = _Linf if norm == "linf" else _L2
    with examined(model, images, labels) as (logits_of, images, labels):
        tried = kind(images, epsilon, for_start)
        proposals, evaluated = tried.proposals(queries, for_squares), Evaluation(logits_of)

        def attempt(left: Tensor) -> Ascent:
            parts = left.split(batch_size(images.device))
            found = [_search(evaluated, tried, part, labels, proposals, progress) for part in parts]
            return Ascent(*(torch.cat(values, int(k == 2)) for k, values in enumerate(zip(*found, strict=True))))

        return in_turn(logits_of, images, labels, [attempt] if epsilon > 0 else [])


def _search(
    evaluated: Evaluation,
    tried: "_Linf | _L2",
    index: Tensor,
    labels: Tensor,
    proposals: list["Proposal"],
    progress: Progress,
) -> Ascent:
    """Search for some images, by index int64 (b,) among those of `tried` and `labels`."""
    found = tried.start[index]
    trace = found.new_full((len(proposals) + 1, len(index)), torch.nan)
    place, x = torch.arange(len(index), device=index.device), found.clone()  # of those that are left
    highest = x.new_full((len(index),), -torch.inf)
    for query in progress(range(len(proposals) + 1)):
        part = index[place]
        candidates, window = tried.changed(x, part, proposals[query - 1]) if query else (x, None)
        logits, label = evaluated.logits(x, candidates, window), labels[part]
        ahead = lead(logits, label)
        is_fooled = ahead >= 0
        is_fooled = confirmed(evaluated.model, candidates, label, is_fooled)  # by the network itself, and not its parts
        is_better = (ahead > highest) | is_fooled
        evaluated.keep(is_better)
        x = torch.where(is_better.view(-1, 1, 1, 1), candidates, x)
        highest = torch.where(is_better, ahead, highest)
        trace[query, place] = highest
        if is_fooled.any():
            found[place[is_fooled]] = x[is_fooled]
            place, x, highest = place[~is_fooled], x[~is_fooled], highest[~is_fooled]
            evaluated.select(~is_fooled)
            if not len(place):
                break
    found[place] = x
    steps = trace.isfinite().sum(0) - 1  # the first is of the start
    return Ascent(found, steps, trace, torch.zeros_like(steps, dtype=torch.bool))


class Proposal(NamedTuple):
    """What is tried in a query: a square and a sign; in the L2 norm also another square, and which way it is split."""

    window: Window
    sign: float
    other: Window
    is_turned: bool


class _Linf:
    """Squares in which every pixel changes by the whole budget, up or down; vertical stripes of them at first."""

    def __init__(self, images: Tensor, epsilon: float, generator: torch.Generator) -> None:
        self.low, self.high = (images - epsilon).clamp(0, 1), (images + epsilon).clamp(0, 1)
        shape = (*images.shape[:2], 1, images.shape[3])
        is_up = torch.rand(shape, generator=generator, device=generator.device).to(images.device) < 0.5
        self.start = torch.where(is_up, self.high, self.low)

    def proposals(self, queries: int, generator: torch.Generator) -> list[Proposal]:
        """As many as there are queries, smaller and smaller."""
        return _proposals(self.start.shape[2:], queries, generator, fewest=1, step=1)

    def changed(self, x: Tensor, index: Tensor, proposal: Proposal) -> tuple[Tensor, Window]:
        """Images with the square in it."""
        rows, columns = proposal.window.area
        x = x.clone()
        x[:, :, rows, columns] = (self.high if proposal.sign > 0 else self.low)[index][:, :, rows, columns]
        return x, proposal.window


class _L2:
    """Squares of two bumps of opposite signs, which take what the budget has left and what another square had."""

    def __init__(self, images: Tensor, epsilon: float, generator: torch.Generator) -> None:
        self.images, self.epsilon = images, epsilon
        tiles = min(TILES, *images.shape[2:])
        side = min(images.shape[2:]) // tiles
        drawn = torch.rand((len(images), tiles * tiles), generator=generator, device=generator.device).to(images.device)
        signs = ((drawn < 0.5).float() * 2 - 1).to(images).view(-1, 1, tiles, tiles)
        moved = torch.zeros_like(images)
        top, left = ((size - tiles * side) // 2 for size in images.shape[2:])
        moved[:, :, top : top + tiles * side, left : left + tiles * side] = torch.kron(signs, bumps(side, images))
        self.start = self._within(images, moved)

    def _within(self, images: Tensor, moved: Tensor) -> Tensor:
        return (images + moved * (self.epsilon / l2(moved).clamp_min(1e-12))).clamp(0, 1)

    def proposals(self, queries: int, generator: torch.Generator) -> list[Proposal]:
        """As many as there are queries, smaller and smaller."""
        return _proposals(self.start.shape[2:], queries, generator, fewest=3, step=2)

    def changed(self, x: Tensor, index: Tensor, proposal: Proposal) -> tuple[Tensor, None]:
        """Images with the square in it."""
        original = self.images[index]
        moved = x - original
        (rows, columns), (other_rows, other_columns) = proposal.window.area, proposal.other.area
        unused = (self.epsilon**2 - l2(moved).square()).clamp_min(0) / x.shape[1]
        both = torch.zeros_like(moved)
        both[:, :, rows, columns] = moved[:, :, rows, columns]
        both[:, :, other_rows, other_columns] = moved[:, :, other_rows, other_columns]
        there = torch.linalg.vector_norm(both, dim=(2, 3), keepdim=True)
        bump = bumps(proposal.window.side, x)
        old = moved[:, :, rows, columns]
        new = proposal.sign * (bump.T if proposal.is_turned else bump)
        new = new + old / torch.linalg.vector_norm(old, dim=(2, 3), keepdim=True).clamp_min(1e-12)
        new = new / torch.linalg.vector_norm(new, dim=(2, 3), keepdim=True).clamp_min(1e-12)
        moved[:, :, other_rows, other_columns] = 0
        moved[:, :, rows, columns] = new * (there.square() + unused).sqrt()
        return self._within(original, moved), None


def bumps(side: int, like: Tensor) -> Tensor:
    """Two bumps of opposite signs, one above the other, (side, side), of L2 norm 1; each falls off from its centre."""

    def one(height: int) -> Tensor:
        rows, columns = (torch.arange(size, device=like.device) - size // 2 for size in (height, side))
        ring = torch.maximum(rows.abs()[:, None], columns.abs())  # around the centre
        terms: Tensor = 1 / (1 + torch.arange(max(height, side) // 2 + 1, device=like.device).double()).square()
        heights: Tensor = terms.flip(0).cumsum(0).flip(0)[ring]
        return heights

    both = torch.cat([one(side // 2), -one(side - side // 2)])
    return torch.nn.functional.normalize(both.flatten(), dim=0).view_as(both).to(like)


def side_of(query: int, size: torch.Size) -> int:
    """The side of the squares in a query, in pixels: their area halves again and again."""
    share = FIRST_SHARE / 2 ** sum(query > bound for bound in HALVED_AT)
    return min(max(round(math.sqrt(share * size.numel())), 1), min(size))


def _proposals(size: torch.Size, queries: int, generator: torch.Generator, *, fewest: int, step: int) -> list[Proposal]:
    drawn = torch.rand((queries, 6), generator=generator, device=generator.device, dtype=torch.float64).tolist()
    found = []
    for query, (row, column, other_row, other_column, sign, turn) in enumerate(drawn):
        side = max(side_of(query, size), fewest)
        side = min(side + (side + 1) % 2, *size) if step == 2 else side  # odd
        height, width = (length - side + 1 for length in size)
        window = Window(int(row * height), int(column * width), side)
        other = Window(int(other_row * height), int(other_column * width), side)
        found.append(Proposal(window, 1.0 if sign < 0.5 else -1.0, other, turn < 0.5))
    return found
