"""Torch's functions of maps whose every value depends on a small window of the maps before: for each, its window."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from cnn_mnist.intervals import ACTIVATIONS, COPIES

OF_SINGLE_VALUES = ACTIVATIONS | COPIES | {"gelu", "silu", "mish", "hardswish", "logsigmoid", "neg", "abs", "detach"}
ARITHMETIC = {"add", "radd", "sub", "rsub", "mul", "rmul", "div", "rtruediv"}

Pair = tuple[int, int]  # for rows and columns


class Step(NamedTuple):
    """A function of maps (B, C, H, W), and its window: size, distance to the next, and width of the margin of zeros.

    `run` expects the margin as part of its maps.
    """

    run: Callable[[Tensor], Tensor]
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    margin: Pair = (0, 0)
    is_convolution: bool = False

    @property
    def is_of_single_values(self) -> bool:
        """Whether each value depends on the one before in its place."""
        return self.kernel == self.stride == (1, 1)


def step_of(name: str, func: Callable[..., Tensor], place: int, args: Any, kwargs: dict[str, Any]) -> Step | None:
    """What one of torch's functions does, by the name that it has without underscores; None: it is not one of these.

    Args:
        name: Its name.
        func: The function.
        place: Where the maps are among its arguments.
        args: Its arguments.
        kwargs: Those with a keyword.
    """
    before, after = args[:place], args[place + 1 :]
    if name in RULES and place == 0:
        return RULES[name](func, *after, **kwargs)
    others = [*before, *after, *kwargs.values()]
    is_known = name in ARITHMETIC or (name in OF_SINGLE_VALUES and not any(isinstance(one, Tensor) for one in others))
    if not is_known or not all(map(_is_the_same_everywhere, others)):
        return None
    return Step(lambda values: func(*before, values, *after, **kwargs))


def _is_the_same_everywhere(value: Any) -> bool:
    """Whether a number, or a tensor that is combined with maps, is the same for all images, rows and columns."""
    if not isinstance(value, Tensor) or value.numel() == 1:
        return True
    return value.shape[-2:] == (1, 1) and (value.ndim < 4 or len(value) == 1)


def _convolution(
    func: Callable[..., Tensor],
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Step | None:
    rows, columns = ((side - 1) * apart + 1 for side, apart in zip(weight.shape[2:], _pair(dilation), strict=True))
    if padding == "same" and not rows % 2 == columns % 2 == 1:
        return None
    by_name = {"same": (rows // 2, columns // 2), "valid": (0, 0)}
    margin = by_name[padding] if isinstance(padding, str) else _pair(padding)
    run = lambda values: func(values, weight, bias, stride, 0, dilation, groups)  # noqa: E731
    return Step(run, (rows, columns), _pair(stride), margin, True)


def _max_pool(
    func: Callable[..., Tensor],
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Step | None:
    is_usual = _pair(dilation) == (1, 1) and not ceil_mode and not return_indices
    return _pool(func, kernel_size, stride, padding) if is_usual else None


def _average_pool(
    func: Callable[..., Tensor],
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Step | None:
    return None if ceil_mode or divisor_override else _pool(func, kernel_size, stride, padding)


def _pool(func: Callable[..., Tensor], kernel_size: Any, stride: Any, padding: Any) -> Step | None:
    kernel, distance = _pair(kernel_size), _pair(stride or kernel_size)
    if _pair(padding) != (0, 0):
        return None
    return Step(lambda values: func(values, kernel, distance), kernel, distance)


def _batch_norm(func: Callable[..., Tensor], *args: Any, training: bool = False, **kwargs: Any) -> Step | None:
    return None if training else Step(lambda values: func(values, *args, training=False, **kwargs))


def _dropout(func: Callable[..., Tensor], p: float = 0.5, training: bool = True, inplace: bool = False) -> Step | None:
    return None if training else Step(lambda values: values)


def _pair(value: Any) -> Pair:
    """A number for rows and columns, given as one or two."""
    return (value[0], value[-1]) if isinstance(value, list | tuple) else (value, value)


RULES: dict[str, Callable[..., Step | None]] = {
    "conv2d": _convolution,
    "max_pool2d": _max_pool,
    "avg_pool2d": _average_pool,
    "batch_norm": _batch_norm,
    "dropout": _dropout,
    "dropout2d": _dropout,
}
