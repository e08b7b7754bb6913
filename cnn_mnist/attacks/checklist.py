"""What a claim of robustness must withstand, measured: many attacks of different kinds on the same images."""

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.autoattack.apgd import apgd
from cnn_mnist.attacks.autoattack.square import square
from cnn_mnist.attacks.breakable import breakable
from cnn_mnist.attacks.gradient_ascent import Progress
from cnn_mnist.attacks.pgd import default_step_size, pgd
from cnn_mnist.attacks.result import AttackResult, check_number, judge, predict
from cnn_mnist.attacks.smallest_change.boundary import RESERVE, boundary
from cnn_mnist.checks import ModelWarning, examined, seeded

BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)  # within the last, every image can become any other
GRADIENT = ("pgd", "pgd_more_steps", "apgd_ce", "apgd_targeted")  # attacks that follow the gradient
NUM_BY_CHANCE = 100  # random changes that must not break a copy, as many as APGD takes steps
ALL = (*GRADIENT, "square", "boundary", "transfer")


class Checklist(NamedTuple):
    """What the attacks did to N images.

    Attributes:
        is_right: Classified correctly without an attack, bool (N,).
        is_broken: For each attack of `ALL`, whether it broke an image, bool (N,); an image that was not attacked, or
            not classified correctly, is not broken.
        num_attacked: For each of them, how many images it was given.
        last_start: Share of the images that the last start of PGD broke, and none before it.
        curve: Accuracy under PGD within each of `BUDGETS`.
        images: The first adversarial image of each that was found; the image itself where there is none.
        num_copies: How many images have a copy of the network that is breakable, and that random changes do not break.
        broken_copies: Share of these copies that the attacks by gradient broke, PGD and APGD; NaN without any.
        other_left: Accuracy of the other network under PGD.
    """

    is_right: Tensor
    is_broken: dict[str, Tensor]
    num_attacked: dict[str, int]
    last_start: float
    curve: list[float]
    images: Tensor
    num_copies: int
    broken_copies: float
    other_left: float

    def left(self, *names: str) -> float:
        """The share of the images that are classified correctly and that none of the attacks broke."""
        broken = functools.reduce(torch.logical_or, (self.is_broken[name] for name in names))
        return (self.is_right & ~broken).double().mean().item()

    def under(self, name: str) -> float:
        """The accuracy under an attack on the images that it was given."""
        given = slice(self.num_attacked[name])
        return (self.is_right & ~self.is_broken[name])[given].double().mean().item()

    def found_more(self, name: str, *others: str) -> float:
        """The share of its images that an attack broke and that none of the others did."""
        broken = functools.reduce(torch.logical_or, (self.is_broken[one] for one in others))
        return int((self.is_broken[name] & ~broken).sum()) / max(self.num_attacked[name], 1)


def checklist(
    model: nn.Module,
    other: nn.Module,
    images: Tensor,
    labels: Tensor | int,
    *,
    epsilon: float = 0.3,
    steps: int = 50,
    step_size: float | None = None,
    restarts: int = 5,
    queries: int = 1000,
    num_decision_based: int = 200,
    num_breakable: int = 50,
    generator: torch.Generator | None = None,
    progress: Callable[[str], Progress] = lambda name: iter,
) -> Checklist:
    """Attack a network by gradient, without a gradient, with the class alone, and through another network.

    Args:
        model: Images to logits (B, C), whose robustness is claimed; unchanged afterwards.
        other: One without a defence, whose adversarial images are tried on the first.
        images: (N, C, H, W) in [0, 1].
        labels: The true classes, int64 (N,).
        epsilon: Largest change of a pixel.
        steps: Steps of PGD from each start; also taken twice as many.
        step_size: Of PGD; None: 2.5 * epsilon / steps.
        restarts: Starts of PGD.
        queries: Of Square and HopSkipJump.
        num_decision_based: Images that HopSkipJump is given, the first ones.
        num_breakable: Images, the first ones, for which a copy of the network is made breakable.
        generator: Of all random draws; None: one with seed 0.
        progress: From an attack's name to what goes through its steps.

    Raises:
        ValueError: As `checks.examined`, or an option out of range.

    Source: Carlini et al. 2019, "On evaluating adversarial robustness"; Zimmermann et al. 2022 for breakable copies.
    """
    check_number("epsilon", epsilon, 1e-6, 1)
    check_number("steps", steps, 1)
    check_number("restarts", restarts, 1)
    check_number("step_size", step_size or 0, 0)
    check_number("queries", queries, 2 * RESERVE)
    check_number("num_decision_based", num_decision_based, 1)
    check_number("num_breakable", num_breakable, 1)
    generator = seeded(generator)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    step = default_step_size(step_size, epsilon, steps)

    def climb(
        model: nn.Module,
        images: Tensor,
        labels: Tensor | int,
        radius: float,
        name: str,
        *,
        starts: int = 1,
        times: int = 1,
    ) -> AttackResult:
        return pgd(
            model,
            images,
            labels,
            epsilon=radius,
            step_size=step * radius / epsilon,
            steps=times * steps,
            restarts=starts,
            generator=fresh(),
            progress=progress(name),
        )

    def fresh() -> torch.Generator:
        """The same starts for every attack, so that twice the steps are compared from the same places."""
        return torch.Generator(generator.device).manual_seed(seed)

    with examined(model, images, labels) as (logits_of, images, labels):
        is_right = predict(logits_of, images).argmax(1) == labels
        few = slice(num_decision_based)
        first = climb(model, images, labels, epsilon, "pgd", starts=restarts)
        results = {
            "pgd": first,
            "pgd_more_steps": climb(model, images, labels, epsilon, "pgd, twice the steps", starts=restarts, times=2),
            "apgd_ce": apgd(model, images, labels, epsilon=epsilon, generator=fresh(), progress=progress("apgd")),
            "apgd_targeted": apgd(
                model,
                images,
                labels,
                epsilon=epsilon,
                generator=fresh(),
                loss="targeted",
                progress=progress("apgd, targeted"),
            ),
            "square": square(
                model, images, labels, epsilon=epsilon, generator=fresh(), queries=queries, progress=progress("square")
            ),
            "boundary": boundary(
                model,
                images[few],
                labels[few],
                epsilon=epsilon,
                generator=fresh(),
                norm="linf",
                queries=queries,
                progress=progress("boundary"),
            ),
        }
        copied = climb(other, images, labels, epsilon, "pgd on the other network")
        results["transfer"] = judge(logits_of, images, copied.images, labels)
        found, broken = images.clone(), {}
        for name, result in results.items():
            broken[name] = torch.zeros_like(is_right)
            given = slice(len(result.success))
            broken[name][given] = result.success & is_right[given]
            is_new = broken[name][given] & (found[given] == images[given]).flatten(1).all(1)
            found[given][is_new] = result.images[is_new]
        curve = [
            1 - climb(model, images, labels, radius, f"pgd, epsilon {radius:g}").success.double().mean().item()
            for radius in BUDGETS
        ]
        num_looks = first.trace.isfinite().sum(0)
        is_last = broken["pgd"] & (num_looks > (steps + 1) * (restarts - 1)) & (restarts > 1)
        copies = breakable(logits_of.model, images[:num_breakable], epsilon=epsilon, generator=fresh())
        chance = torch.rand(NUM_BY_CHANCE, *images.shape[1:], generator=fresh(), device=generator.device).to(images)
        moved = epsilon * (chance - 0.5).sign()

        def falls(copy: nn.Module, image: Tensor) -> bool:
            climbed = climb(copy, image, 0, epsilon, "pgd on a breakable copy", starts=restarts)
            return bool(climbed.success or apgd(copy, image, 0, epsilon=epsilon, generator=fresh()).success)

        rare = [
            (copy, image[None])
            for copy, image in zip(copies, images, strict=False)
            if copy is not None and not predict(copy, (image + moved).clamp(0, 1)).argmax(1).any()
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModelWarning)  # that the gradient is zero has been said of the network
            fallen = [falls(copy, image) for copy, image in rare]
    return Checklist(
        is_right,
        broken,
        {name: len(result.success) for name, result in results.items()},
        is_last.double().mean().item(),
        curve,
        found,
        len(fallen),
        sum(fallen) / len(fallen) if fallen else float("nan"),
        1 - copied.success.double().mean().item(),
    )
