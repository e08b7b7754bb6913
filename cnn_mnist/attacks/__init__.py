"""Attacks: pure functions from a model and images to one kind of record, all of them one ascent with other parts."""

from cnn_mnist.attacks.lab import noise, non_targeted, targeted, universal
from cnn_mnist.attacks.result import AttackResult
from cnn_mnist.attacks.standard import deepfool, fgsm, pgd
from cnn_mnist.guard import ModelWarning as AttackWarning

__all__ = [
    "AttackResult",
    "AttackWarning",
    "deepfool",
    "fgsm",
    "noise",
    "non_targeted",
    "pgd",
    "targeted",
    "universal",
]
