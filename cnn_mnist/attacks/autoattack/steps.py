"""Operations whose results at a place depend on a small window of the maps before: for each, its window.

They have the names and arguments of PyTorch's ATen library, of which an exported network consists.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

ALSO_POINTWISE = {"aten._to_copy.default", "aten.hardswish.default"}  # PyTorch does not mark them

Pair = tuple[int, int]  # for rows and columns


class Step(NamedTuple):
    """A function of maps (B, C, H, W) and its window.

    Attributes:
        run: Takes maps that already include the margin.
        kernel: Size of the window.
        stride: Distance to the next window.
        margin: Width of the margin of zeros around the maps; only convolutions have one.
        is_convolution: It costs most to compute again.
    """

    run: Callable[[Tensor], Any]
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    margin: Pair = (0, 0)
    is_convolution: bool = False


def is_pointwise(operation: object) -> bool:
    """Whether each value of the result depends on the values in its place."""
    return torch.Tag.pointwise in getattr(operation, "tags", ()) or str(operation) in ALSO_POINTWISE


def is_per_channel(value: Any) -> bool:
    """Whether what an operation combines with maps is the same for all images, rows and columns."""
    if not isinstance(value, Tensor):
        return True
    is_single = value.numel() == 1 and value.ndim <= 4
    return is_single or (tuple(value.shape[-2:]) == (1, 1) and value.shape[:-3].numel() == 1 and value.ndim <= 4)


def step_of(operation: object, *arguments: Any, **options: Any) -> Step | None:
    """What an operation does to maps, its first argument; None: it needs whole maps.

    Args:
        operation: Of ATen.
        arguments: The others, none of which depends on the images.
        options: Those with a keyword.
    """
    rule = RULES.get(str(operation))
    return rule(operation, *arguments, **options) if rule else None


def _convolution(
    operation: Callable[..., Tensor],
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

    def run(maps: Tensor) -> Tensor:
        return torch.conv2d(maps, weight, bias, stride, 0, dilation, groups)

    return Step(run, (rows, columns), _pair(stride), margin, is_convolution=True)


def _max_pool(
    operation: Callable[..., Tensor],
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Step | None:
    return None if ceil_mode or _pair(dilation) != (1, 1) else _pool(operation, kernel, stride, padding)


def _average_pool(
    operation: Callable[..., Tensor],
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Step | None:
    return None if ceil_mode or divisor else _pool(operation, kernel, stride, padding)


def _pool(operation: Callable[..., Tensor], kernel: Any, stride: Any, padding: Any) -> Step | None:
    window, distance = _pair(kernel), _pair(stride or kernel)
    return None if _pair(padding) != (0, 0) else Step(lambda maps: operation(maps, window, distance), window, distance)


def _batch_norm(operation: Callable[..., Any], *arguments: Any) -> Step:
    return Step(lambda maps: operation(maps, *arguments)[0])


def _pair(value: Any) -> Pair:
    """A number for rows and columns, given as one or two."""
    return (value[0], value[-1]) if isinstance(value, list | tuple) else (value, value)


RULES: dict[str, Callable[..., Step | None]] = {
    "aten.conv2d.default": _convolution,
    "aten.conv2d.padding": _convolution,
    "aten.max_pool2d.default": _max_pool,
    "aten.avg_pool2d.default": _average_pool,
    "aten._native_batch_norm_legit_no_training.default": _batch_norm,
}
