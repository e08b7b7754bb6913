"""Attacks: pure functions from a model and images to an `AttackResult`."""

from cnn_mnist.attacks.deepfool import deepfool
from cnn_mnist.attacks.fooling import non_targeted
from cnn_mnist.attacks.noise import noise, universal
from cnn_mnist.attacks.pgd import fgsm, pgd
from cnn_mnist.attacks.result import AttackResult, judge
from cnn_mnist.attacks.targeted import targeted
from cnn_mnist.checks import ModelWarning as AttackWarning

__all__ = [
    "AttackResult",
    "AttackWarning",
    "deepfool",
    "fgsm",
    "judge",
    "noise",
    "non_targeted",
    "pgd",
    "targeted",
    "universal",
]
