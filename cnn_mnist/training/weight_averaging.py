"""Averages the weights over the steps (Polyak and Juditsky 1992), recent ones weighted most."""

from typing import Annotated

from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

from cnn_mnist.option_types import number


class ExponentialMovingAverage(WeightAveraging):
    """Averages the weights over the steps; the average is evaluated, drawn and stored in checkpoints.

    In a short training a mean over a thousand steps would consist mostly of random weights. So the decay grows with the
    number of steps n as (1 + n) / (10 + n), as in TensorFlow's average of the same name, until it reaches `decay`.

    Args:
        decay: Share of the average that a step keeps.
    """

    def __init__(self, decay: Annotated[float, number(float, 0, 0.999999)] = 0.999) -> None:
        def average(averaged: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
            kept = min(decay, (1 + int(num_averaged)) / (10 + int(num_averaged)))
            return averaged + (1 - kept) * (current - averaged)

        super().__init__(avg_fn=average)
