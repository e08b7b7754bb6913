"""Checks of models and inputs, and evaluation of a model frozen and in eval mode.

Works for any module from images to logits. The checks report in one sentence what would otherwise be a wrong number or
an error from inside torch.
"""

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

NUM_PROBED = 32  # images on which a model's output is checked
NUM_ALONE = 4  # of them that are also evaluated one by one
ROUNDING = 1e-6  # how far outside [0, 1] float32 arithmetic may put a grey value
FEWEST_FOR_A_SIGMOID = 8  # images; fewer may have all their logits in [0, 1] by chance


class ModelWarning(UserWarning):
    """Something that makes an attack look weaker, a model stronger, or a result less certain than it is."""


class Checked(NamedTuple):
    """A model and its inputs, ready for use: see `examined`."""

    model: "Logits"
    images: Tensor
    classes: Tensor


class Logits(nn.Module):
    """A model whose output is a tensor of logits (B, C) in the images' dtype; it does not change its input.

    Args:
        model: Any module from images (B, C, H, W) to logits. Computes in its own dtype.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        tensors = itertools.chain(model.parameters(), model.buffers())
        self.dtype = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), None)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) for images (B, C, H, W).

        Raises:
            ValueError: The model returns something else.
        """
        output = self.model(images.to(self.dtype or images.dtype, copy=True))  # a copy: the model may work in place
        if not isinstance(output, Tensor):
            raise ValueError(
                f"the model must return a tensor of logits (B, C), got a {type(output).__name__}: wrap it in a module "
                "that returns the logits alone"
            )
        if output.ndim != 2 or len(output) != len(images):
            raise ValueError(f"the model must return logits (B, C), got {tuple(output.shape)} for {len(images)} images")
        return output.to(images.dtype)


@contextmanager
def untouched(model: nn.Module) -> Iterator[bool]:
    """Put a model into eval mode with its parameters frozen, then restore every module and parameter.

    Yields:
        Whether any module was in train mode.
    """
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    was_training = any(modes.values())
    try:
        model.eval()
    except NotImplementedError:  # a torch.export program has only the mode in which it was exported
        was_training = False
    model.requires_grad_(False)
    try:
        yield was_training
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


@contextmanager
def examined(model: nn.Module, images: Tensor, classes: Tensor | int, *, name: str = "label") -> Iterator[Checked]:
    """Check a model and its inputs, and keep the model frozen and in eval mode inside the block.

    Args:
        model: Images to logits (B, C); unchanged afterwards.
        images: (N, C, H, W), floating point, in [0, 1].
        classes: int64 (N,) in 0..C-1, or one class for all images.
        name: What errors call the classes.

    Yields:
        The model as `Logits`, the images detached, the classes as int64 (N,) on the images' device.

    Raises:
        ValueError: The images are not floats in [0, 1]; there are more or fewer classes than images, or classes that
            the model does not have; the model does not return logits, but something else such as probabilities, or
            values that are not finite.

    Warns:
        ModelWarning: The model was in train mode; its outputs all lie in [0, 1], as those of a sigmoid do; an image's
            logits depend on the other images of its batch.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model must be a torch.nn.Module, got a {type(model).__name__}: wrap it in one")
    images = checked_images(images)
    classes = checked_classes(classes, images)
    with untouched(model) as was_training:
        if was_training:
            _warn("the model was in train mode: it is evaluated in eval mode, in which it predicts")
        logits_of = Logits(model)
        _probe(logits_of, images[:NUM_PROBED], classes, name)
        yield Checked(logits_of, images, classes)


def checked_images(images: Tensor) -> Tensor:
    """Images (N, C, H, W) in [0, 1], detached; grey values that rounding put outside are clamped.

    Raises:
        ValueError: They are not, or there are none.
    """
    if not isinstance(images, Tensor):
        raise ValueError(f"images must be a torch.Tensor, got a {type(images).__name__}: use torch.as_tensor(images)")
    if images.ndim != 4:
        raise ValueError(f"images must have the shape (N, 1, H, W), got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images must be floats in [0, 1], got {images.dtype}: divide grey values of 0..255 by 255")
    if not len(images):
        raise ValueError("there are no images")
    images = images.detach()
    low, high = images.min().item(), images.max().item()
    if low >= 0 and high <= 1:
        return images
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # so that NaN fails too
        hint = ""
        if low >= 0 and 2 < high <= 255:
            hint = ": these are grey values of 0..255, divide them by 255"
        elif low < 0:
            hint = ": undo their normalisation"
        raise ValueError(f"images must lie in [0, 1], got {low:.7g}..{high:.7g}{hint}")
    return images.clamp(0, 1)


def checked_classes(classes: Tensor | int, images: Tensor) -> Tensor:
    """One class for each image, int64 (N,), on the images' device.

    Raises:
        ValueError: There are more or fewer than images, or they are not integers.
    """
    found = torch.as_tensor(classes, device=images.device)
    if found.is_floating_point() or found.is_complex():
        raise ValueError(f"classes must be whole numbers, got {found.dtype}")
    if found.ndim and found.shape != images.shape[:1]:
        raise ValueError(f"{len(images)} images need as many classes, got the shape {tuple(found.shape)}")
    return found.long().expand(len(images))


def check_logits(logits: Tensor) -> None:
    """Raise ValueError where logits (B, C) are not finite, or are probabilities."""
    if not logits.isfinite().all():
        raise ValueError("the model returns values that are not finite")
    if (logits >= 0).all() and (logits.sum(1) - 1).abs().max() < 1e-3:
        raise ValueError("the model returns probabilities, whose gradients vanish: take its softmax off")


def seeded(generator: torch.Generator | None) -> torch.Generator:
    """The generator, or one with seed 0 on the CPU in place of None.

    Raises:
        ValueError: It is no generator.
    """
    if not isinstance(generator, torch.Generator | None):
        raise ValueError(f"generator must be a torch.Generator, got {generator!r}: torch.Generator().manual_seed(0)")
    return torch.Generator().manual_seed(0) if generator is None else generator


def _probe(model: Logits, images: Tensor, classes: Tensor, name: str) -> None:
    """Check a model's output for a few images."""
    with torch.no_grad():
        logits = model(images)
        check_logits(logits)
        num_classes = logits.shape[1]
        if num_classes < 2:
            raise ValueError("the model must return a logit for each class, got one logit")
        outside = classes[(classes < 0) | (classes >= num_classes)]
        if len(outside):
            raise ValueError(f"{name} must be a class, 0..{num_classes - 1}, got {int(outside[0])}")
        if len(images) >= FEWEST_FOR_A_SIGMOID and logits.min() >= 0 and logits.max() <= 1:
            _warn("the model's outputs all lie in [0, 1]: if it ends in a sigmoid, take that off")
        if len(images) > 1:
            try:
                alone = torch.cat([model(image[None]) for image in images[:NUM_ALONE]])
            except ValueError as error:
                raise ValueError(f"the model cannot evaluate an image alone ({error})") from error
            differ = (alone - logits[:NUM_ALONE]).abs().max().item()
            precision = torch.finfo(model.dtype or images.dtype).eps ** 0.5
            if differ > 3 * precision * logits.abs().max().item():
                _warn(
                    f"an image's logits differ by up to {differ:.2g} between a batch of {len(images)} and the image "
                    "alone: the model is random, or uses batch statistics in eval mode (batch normalisation without "
                    "running statistics), and its accuracy depends on the size of the batch"
                )


def _warn(message: str) -> None:
    warnings.warn(message, ModelWarning, stacklevel=6)
