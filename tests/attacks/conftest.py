"""A linear model, on which every attack's result can be computed by hand, and all attacks with options for it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cnn_mnist import attacks
from cnn_mnist.attacks import AttackResult

WEIGHT = torch.tensor([[1.0, -2.0, 0.0, 0.5], [-1.0, 1.0, 0.0, 0.5], [0.0, 0.0, 3.0, -3.0]])


def linear(weight: Tensor = WEIGHT, side: int = 2) -> nn.Module:
    """Logits that are linear in the pixels."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(side * side, len(weight), bias=False))
    model[1].weight.data = weight.clone()
    return model.eval()


Attack = Callable[[nn.Module, Tensor, Tensor], AttackResult]  # labels, or targets that are another class


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


ALL: dict[str, Attack] = {
    "non_targeted": lambda model, x, y: attacks.non_targeted(
        model, y, steps=60, step_size=0.2, generator=_generator(), shape=tuple(x.shape[1:])
    ),
    "targeted": lambda model, x, y: attacks.targeted(model, x, y, beta=6.5, steps=30, step_size=0.2),
    "noise": lambda model, x, y: attacks.noise(model, x, y, steps=30, step_size=4 / 255),
    "fgsm": lambda model, x, y: attacks.fgsm(model, x, y, epsilon=0.2),
    "fgsm_targeted": lambda model, x, y: attacks.fgsm(model, x, y, epsilon=0.2, targeted=True),
    "pgd": lambda model, x, y: attacks.pgd(
        model, x, y, epsilon=0.1, step_size=0.03, steps=8, restarts=2, generator=_generator()
    ),
    "pgd_to_the_end": lambda model, x, y: attacks.pgd(
        model, x, y, epsilon=0.1, step_size=0.03, steps=8, restarts=2, early_stop=False, generator=_generator()
    ),
    "pgd_l2": lambda model, x, y: attacks.pgd(
        model, x, y, epsilon=2.5, step_size=0.5, steps=8, norm="l2", generator=_generator()
    ),
    "pgd_targeted": lambda model, x, y: attacks.pgd(
        model, x, y, epsilon=0.2, step_size=0.03, steps=12, targeted=True, generator=_generator()
    ),
    "apgd_ce": lambda model, x, y: attacks.apgd(model, x, y, epsilon=0.1, steps=20, generator=_generator()),
    "apgd_targeted_l2": lambda model, x, y: attacks.apgd(
        model, x, y, epsilon=2.5, loss="targeted", steps=10, norm="l2", generator=_generator()
    ),
    "fab": lambda model, x, y: attacks.fab(model, x, y, epsilon=0.15, steps=10),
    "square": lambda model, x, y: attacks.square(model, x, y, epsilon=0.25, queries=50, generator=_generator()),
    "square_l2": lambda model, x, y: attacks.square(
        model, x, y, epsilon=3, queries=50, norm="l2", generator=_generator()
    ),
    "auto": lambda model, x, y: attacks.auto(model, x, y, epsilon=0.4, generator=_generator()),
    "carlini_wagner": lambda model, x, y: attacks.carlini_wagner(model, x, y, steps=25, searches=3, first_weight=1.0),
    "boundary": lambda model, x, y: attacks.boundary(model, x, y, queries=150, generator=_generator()),
    "boundary_linf": lambda model, x, y: attacks.boundary(
        model, x, y, queries=300, norm="linf", epsilon=0.4, generator=_generator()
    ),
    "deepfool": lambda model, x, y: attacks.deepfool(model, x, y, steps=20),
    "universal": lambda model, x, y: attacks.universal(
        model, x, int(y[0]), epsilon=0.3, steps=10, step_size=0.06, batch_size=8, generator=_generator()
    ),
}
TARGETED = ("non_targeted", "targeted", "noise", "fgsm_targeted", "pgd_targeted", "universal")


@pytest.fixture(params=sorted(ALL))
def name(request: pytest.FixtureRequest) -> str:
    """Each attack in turn."""
    return str(request.param)
