"""Attacks: pure functions from a model and images to an `AttackResult`."""

from cnn_mnist.attacks.autoattack.apgd import apgd
from cnn_mnist.attacks.autoattack.ensemble import auto
from cnn_mnist.attacks.autoattack.fab import fab
from cnn_mnist.attacks.autoattack.square import square
from cnn_mnist.attacks.checklist import checklist
from cnn_mnist.attacks.fooling import non_targeted
from cnn_mnist.attacks.noise import noise, universal
from cnn_mnist.attacks.pgd import fgsm, pgd
from cnn_mnist.attacks.result import AttackResult, judge
from cnn_mnist.attacks.smallest_change.boundary import boundary
from cnn_mnist.attacks.smallest_change.carlini_wagner import carlini_wagner
from cnn_mnist.attacks.smallest_change.deepfool import deepfool
from cnn_mnist.attacks.targeted import targeted
from cnn_mnist.checks import ModelWarning as AttackWarning

__all__ = [
    "AttackResult",
    "AttackWarning",
    "apgd",
    "auto",
    "boundary",
    "carlini_wagner",
    "checklist",
    "deepfool",
    "fab",
    "fgsm",
    "judge",
    "noise",
    "non_targeted",
    "pgd",
    "square",
    "targeted",
    "universal",
]
