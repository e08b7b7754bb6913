"""Training goes on where a picture cannot be drawn."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pytorch_lightning.callbacks import Callback

from cnn_mnist.callbacks.tensorboard import PictureCallback


class Spared:
    """Callbacks of which those that draw do not end the training where they fail.

    The first failure of each is said at once, and all of them at the end. An error in any other callback ends the run.

    Args:
        looks: Callbacks by name.

    Attributes:
        callbacks: The same ones, those that draw spared.
        failed: What went wrong first, by name.
    """

    def __init__(self, looks: Mapping[str, Callback]) -> None:
        self.callbacks = list(looks.values())
        self.failed: dict[str, str] = {}
        for name, callback in looks.items():
            if not isinstance(callback, PictureCallback):
                continue
            for hook in filter(lambda attribute: attribute.startswith("on_"), vars(Callback)):
                if getattr(type(callback), hook) is not getattr(Callback, hook):
                    setattr(callback, hook, partial(self._attempt, name, getattr(callback, hook)))

    def _attempt(self, name: str, hook: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        try:
            hook(*args, **kwargs)
        except Exception as error:
            if name not in self.failed:
                self.failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
                message = f"callbacks.{name} has failed, and training goes on without it ({self.failed[name]})"
                warnings.warn(message, UserWarning, stacklevel=2)

    def check(self) -> None:
        """Raise ValueError where any has failed."""
        if self.failed:
            what = "; ".join(f"{name} ({reason})" for name, reason in self.failed.items())
            raise ValueError(f"the training is done and on record, but not all of its pictures: {what}")
