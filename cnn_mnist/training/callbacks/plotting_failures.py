"""Training continues if a picture cannot be drawn."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pytorch_lightning.callbacks import Callback

from cnn_mnist.figures.class_names import class_names
from cnn_mnist.training.callbacks.picture_callback import PictureCallback


class PlottingFailures:
    """Wraps callbacks so that a plotting failure does not end the training, and classes have their names.

    A callback that has failed is reported at once, and again at the end, and is not called any more; of several
    processes, where the others may wait for it, it is called all the same. An error in a callback that is not a
    `PictureCallback` ends the run.

    Args:
        callbacks: Callbacks by name.

    Attributes:
        callbacks: The same callbacks, wrapped.
        failed: The first error of each, by name.
    """

    def __init__(self, callbacks: Mapping[str, Callback]) -> None:
        self.callbacks = list(callbacks.values())
        self.failed: dict[str, str] = {}
        for name, callback in callbacks.items():
            if not isinstance(callback, PictureCallback):
                continue
            for hook in filter(lambda attribute: attribute.startswith("on_"), vars(Callback)):
                if getattr(type(callback), hook) is not getattr(Callback, hook):
                    setattr(callback, hook, partial(self._attempt, name, getattr(callback, hook)))

    def _attempt(self, name: str, hook: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        trainer, has_failed = args[0], name in self.failed
        if has_failed and trainer.world_size == 1:
            return
        try:
            with class_names(getattr(trainer.datamodule, "classes", ())):
                hook(*args, **kwargs)
        except Exception as error:
            if has_failed:
                return
            self.failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            message = f"callbacks.{name} has failed, and training continues without it ({self.failed[name]})"
            warnings.warn(message, UserWarning, stacklevel=2)

    def check(self) -> None:
        """Raise ValueError if any has failed."""
        if self.failed:
            what = "; ".join(f"{name} ({reason})" for name, reason in self.failed.items())
            raise ValueError(f"the training is done and on record, but not all of its pictures: {what}")
