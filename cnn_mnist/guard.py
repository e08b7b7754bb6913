"""A look at a model that leaves no trace on it."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode with its parameters frozen; give every module and parameter back its own state."""
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval()
    model.requires_grad_(False)
    try:
        yield
    finally:
        for module, was_training in modes.items():
            module.training = was_training
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
