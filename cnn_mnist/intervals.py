"""Interval arithmetic: bounds on what a network computes for all images within a distance.

A network is called with an `Interval` in place of its images. Each torch function that it calls computes with lower and
upper bounds: an affine function maps the centre, and spreads the radius by its absolute weights; a non-decreasing
function maps both ends. How far one logit can be ahead of another follows from the difference of their weights in
the last linear layer, more closely than from the bounds of the two.

In training, one image of each interval is propagated along with the bounds. Batch normalisation takes its statistics
from these images, and applies them to the bounds too.

Sources: Gowal et al. 2019, "Scalable verified training for provably robust image classification"; for batch
normalisation, Shi et al. 2021, "Fast certified robust training with short warmup".
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

AFFINE = {"conv1d", "conv2d", "linear"}
ACTIVATIONS = {"relu", "relu6", "leaky_relu", "elu", "celu", "selu", "softplus", "tanh", "sigmoid", "hardtanh"}
ACTIVATIONS |= {"hardsigmoid", "softsign", "log_sigmoid", "clamp", "clamp_min", "clamp_max"}
MEANS_AND_POOLS = {"max_pool2d", "adaptive_max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean", "sum"}
SHAPES = {"pad", "flatten", "reshape", "view", "permute", "transpose", "squeeze", "unsqueeze"}
SHAPES |= {"getitem", "cat", "stack"}
COPIES = {"contiguous", "to", "float", "double", "clone"}
NON_DECREASING = ACTIVATIONS | MEANS_AND_POOLS | SHAPES | COPIES
UNLESS_NEGATIVE = {"leaky_relu", "elu", "celu", "avg_pool2d", "pad"}  # non-decreasing without a negative argument


def _operator(func: Callable[..., Any]) -> Callable[..., Any]:
    """A method of intervals that computes one of torch's functions."""
    return lambda *args: compute(func, args, {})


class Interval:
    """All tensors between two of the same shape, for a network to compute with.

    Attributes:
        low: Their lower bounds.
        high: Their upper bounds.
        source: Of the output of a linear layer, the radius of the interval that it was given, and its weight.
        examples: Tensors within the bounds, for which the same is computed; None: there are none.
    """

    def __init__(self, low: Tensor, high: Tensor, examples: Tensor | None = None) -> None:
        self.low, self.high, self.examples = low, high, examples
        self.source: tuple[Tensor, Tensor] | None = None

    @classmethod
    def around(cls, centre: Tensor, radius: Tensor) -> "Interval":
        """The tensors within a distance of the centre."""
        return cls(centre - radius, centre + radius)

    @property
    def centre(self) -> Tensor:
        """Halfway between the bounds."""
        return (self.low + self.high) / 2

    @property
    def radius(self) -> Tensor:
        """Half the distance between the bounds."""
        return (self.high - self.low) / 2

    def __getattr__(self, name: str) -> Any:
        """A property such as the shape, or a method of tensors such as `flatten`."""
        if name in ("shape", "ndim", "dtype", "device", "requires_grad", "size", "dim"):
            return getattr(self.low, name)
        if not callable(method := getattr(Tensor, name)):
            raise ValueError(f"there are no bounds for {name} of a tensor, which the network asks for")
        return lambda *args, **kwargs: compute(method, (self, *args), kwargs)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> "Interval":
        return compute(func, args, kwargs or {})

    __add__ = __radd__ = _operator(torch.add)
    __sub__, __rsub__ = _operator(torch.sub), _operator(torch.rsub)
    __mul__ = __rmul__ = _operator(torch.mul)
    __truediv__, __rtruediv__ = _operator(torch.div), _operator(Tensor.__rtruediv__)
    __neg__, __abs__, __getitem__ = _operator(torch.neg), _operator(torch.abs), _operator(Tensor.__getitem__)
    __pow__, __rpow__ = _operator(torch.pow), _operator(Tensor.__rpow__)
    __matmul__, __rmatmul__ = _operator(torch.matmul), _operator(Tensor.__rmatmul__)
    __lt__, __le__, __gt__, __ge__ = map(_operator, (torch.lt, torch.le, torch.gt, torch.ge))
    __eq__, __ne__ = map(_operator, (torch.eq, torch.ne))
    __hash__ = object.__hash__

    def __len__(self) -> int:
        return len(self.low)

    def __bool__(self) -> bool:
        raise ValueError("there are no bounds for a choice that depends on the image")

    def __iter__(self) -> Iterator["Interval"]:
        return (self[number] for number in range(len(self)))


def compute(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Interval:
    """The interval that one of torch's functions makes of intervals.

    Raises:
        ValueError: There is no rule for the function.
    """
    name = func.__name__.strip("_")
    is_in_place = func.__name__.endswith("_") and not func.__name__.endswith("__")
    try:
        found = _bounds(name, is_in_place, func, args, kwargs)
        if name not in DROPOUTS and all(one.examples is not None for one in _intervals((args, kwargs))):
            found.examples = func(*_end(args, "examples"), **_end(kwargs, "examples"))
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"there are no bounds for torch's {name} with these arguments ({error})") from error
    return found


def _bounds(name: str, is_in_place: bool, func: Callable[..., Any], args: Any, kwargs: Any) -> Interval:
    if name in AFFINE:
        return _affine(func, *args, **kwargs)
    if name in NON_DECREASING and not (name in UNLESS_NEGATIVE and _has_negative((*args[1:], *kwargs.values()))):
        low, high = (func(*_end(args, end), **_end(kwargs, end)) for end in ("low", "high"))
        if is_in_place or kwargs.get("inplace"):
            args[0].source = None  # it is no longer what the linear layer gave
        return Interval(low, high)
    if name in RULES and not is_in_place:  # in place, it would not change the interval that the caller holds
        return RULES[name](*args, **kwargs)
    raise ValueError(f"there are no bounds for torch's {name} with its arguments, which the network calls")


def _has_negative(values: Any) -> bool:
    return any(isinstance(value, int | float) and value < 0 for value in values)


def _intervals(values: Any) -> Iterator[Interval]:
    """Those among arguments, and in lists of them."""
    if isinstance(values, Interval):
        yield values
    elif isinstance(values, dict | tuple | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _intervals(value)


def _end(values: Any, end: str) -> Any:
    """The same with one end in place of each interval."""
    if isinstance(values, Interval):
        return getattr(values, end)
    if isinstance(values, dict):
        return {key: _end(value, end) for key, value in values.items()}
    return type(values)(_end(value, end) for value in values) if isinstance(values, tuple | list) else values


def _affine(
    func: Callable[..., Tensor], input: Interval, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any
) -> Interval:
    radius = input.radius
    found = Interval.around(
        func(input.centre, weight, bias, *args, **kwargs), func(radius, weight.abs(), None, *args, **kwargs)
    )
    found.source = (radius, weight) if weight.ndim == 2 else None
    return found


def _batch_norm(
    input: Interval,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Interval:
    mean, var = running_mean, running_var
    if training:
        if input.examples is None:
            raise ValueError("batch normalisation takes its statistics from this batch: give `ball` some examples")
        precise = torch.promote_types(input.examples.dtype, torch.float32)
        others = [dim for dim in range(input.ndim) if dim != 1]
        var, mean = torch.var_mean(input.examples.to(precise), others, correction=0)
    scale = torch.rsqrt(var + eps) if weight is None else weight * torch.rsqrt(var + eps)
    shift = -mean * scale if bias is None else bias - mean * scale
    shape = (-1, *[1] * (input.ndim - 2))
    scale, shift = scale.view(shape), shift.view(shape)
    return Interval.around(input.centre * scale + shift, input.radius * scale.abs())


def _dropout(
    func: Callable[..., Tensor], input: Interval, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Interval:
    kept = func(torch.ones_like(input.low), p, training)  # the same units for bounds and examples
    return Interval(input.low * kept, input.high * kept, None if input.examples is None else input.examples * kept)


def _add(one: Any, other: Any) -> Interval:
    return Interval(_end(one, "low") + _end(other, "low"), _end(one, "high") + _end(other, "high"))


def _scaled(one: Any, factor: Any) -> Any:
    if isinstance(factor, Interval):
        one, factor = factor, one
    if isinstance(factor, Interval):
        raise ValueError("there are no bounds for the product of two values that depend on the image")
    return Interval.around(one.centre * factor, one.radius * abs(factor)) if isinstance(one, Interval) else one * factor


DROPOUTS = {f.__name__: partial(_dropout, f) for f in (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)}
RULES: dict[str, Callable[..., Interval]] = {
    "batch_norm": _batch_norm,
    **DROPOUTS,
    "neg": lambda one: _scaled(one, -1.0),
    "add": _add,
    "radd": _add,
    "sub": lambda one, other: _add(one, _scaled(other, -1.0)),
    "rsub": lambda one, other: _add(other, _scaled(one, -1.0)),
    "mul": _scaled,
    "rmul": _scaled,
    "div": lambda one, other: _scaled(one, 1 / other),
}


def ball(images: Tensor, epsilon: float | Tensor, examples: Tensor | None = None) -> Interval:
    """All images in which no pixel differs by more than `epsilon` from the given ones, (N, C, H, W) in [0, 1].

    `examples` is one image from each ball; batch normalisation in training uses the statistics of these.
    """
    return Interval((images - epsilon).clamp(0, 1), (images + epsilon).clamp(0, 1), examples)


def furthest_ahead(logits: Interval, labels: Tensor) -> Tensor:
    """How far each class can be ahead of the label, at most, in logits: (B, C); 0 for the label itself."""
    label = labels[:, None]
    if logits.source is None:
        return (logits.high - logits.low.gather(1, label)).scatter(1, label, 0.0)
    radius, weight = logits.source
    apart = (weight[:, None] - weight).abs()  # (C, C, K)
    spread = F.linear(radius, apart.flatten(0, 1)).view(len(labels), *apart.shape[:2])
    centre = logits.centre
    return centre - centre.gather(1, label) + spread[torch.arange(len(labels)), labels]
