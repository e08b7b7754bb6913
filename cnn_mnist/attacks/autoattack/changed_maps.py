"""A network's layers where an image changes: what a few pixels cannot reach is not computed again.

A network is called with `Maps` in place of its images. Convolutions, pools, sums and functions of single values compute
the part of their maps that the change reaches; what they see around it is that of the images that were kept. A linear
layer adds the change, times the weights that see it. Whatever else the network calls gets whole tensors.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnn_mnist.attacks.autoattack.steps import ARITHMETIC, Step, step_of
from cnn_mnist.stand_in import StandIn

SHAPES = {"flatten", "view", "reshape"}

Area = tuple[slice, slice]  # rows and columns


class Memory:
    """What layers had for the images that were kept, and what the last images would change in them.

    Attributes:
        kept: The values of each layer, in the order in which the network comes to need them.
        last: For the same layers, an area, `()` of a vector, and what the last images have there.
        constants: Weights and numbers that the network has used, and that are the same for all images.
    """

    def __init__(self) -> None:
        self.kept: list[Tensor] = []
        self.last: list[tuple[Area | tuple[()], Tensor]] = []
        self.constants: list[Any] = []
        self._num_seen = 0

    def begin(self) -> None:
        """The network is called with other images."""
        self.last, self._num_seen = [], 0

    def add(self, area: Area | tuple[()], values: Tensor) -> int:
        """Note the change of another layer; returns its number."""
        self.last.append((area, values))
        return len(self.last) - 1

    def expect_constant(self, values: Iterable[Any]) -> None:
        """Raise ValueError if a tensor or a number is another one than with the first images, as an image's mean is."""
        for value in values:
            if not isinstance(value, Tensor | float | int):
                continue
            if self._num_seen == len(self.constants):
                self.constants.append(value)
            first = self.constants[self._num_seen]
            if first is not value and not torch.equal(torch.as_tensor(first), torch.as_tensor(value)):
                raise ValueError("the network uses other weights for other images")
            self._num_seen += 1


class Maps(StandIn):
    """A layer's maps (B, C, H, W), which are those of the images that were kept except in an area.

    Args:
        memory: What the layers had for those images.
        values: What the area has, (B, C, h, w), before the steps.
        area: Its rows and columns, before the steps.
        extent: Height and width of the whole maps, before the steps.
        steps: What is still to be done; only the first can be a convolution. They are carried out together, so that
            each computes what the next one sees, and none but the first needs what was kept.
    """

    def __init__(
        self, memory: Memory, values: Tensor, area: Area, extent: tuple[int, int], steps: tuple[Step, ...] = ()
    ) -> None:
        self.memory, self.values, self.area, self.extent, self.steps = memory, values, area, extent, steps
        self._done: Maps | None = None
        self._number: int | None = None

    @classmethod
    def compute(cls, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What one of torch's functions returns: `Maps` or `Vector` where it can, otherwise whole tensors."""
        name = func.__name__
        if not kwargs.get("inplace") and (name.endswith("__") or not name.endswith("_")):
            return _result(name.strip("_"), func, args, kwargs)

        def on_a_copy(values: Tensor, *others: Any, **options: Any) -> Any:
            return func(values.clone(), *others, **options)

        found = _result(name.strip("_"), on_a_copy, args, kwargs)
        if type(found) is not type(args[0]):
            raise TypeError(f"{name} changes a tensor in place")
        args[0].__dict__.update(found.__dict__)  # the network may go on with either
        return found

    @property
    def done(self) -> "Maps":
        """The same maps, with no steps left."""
        if not self.steps:
            return self
        if self._done is None:
            rows, columns = self._along(0), self._along(1)
            is_alone = all(step.is_of_single_values for step in self.steps)
            values = self.values if is_alone else self.part((rows[0], columns[0]))
            for step in self.steps:
                values = step.run(values)
            self._done = Maps(self.memory, values, (rows[1], columns[1]), (rows[2], columns[2]))
        return self._done

    def _along(self, axis: int) -> tuple[slice, slice, int]:
        """Along rows or columns: what the steps have to see, what they change, and how much there is after them."""
        size, first, stop = self.extent[axis], self.area[axis].start, self.area[axis].stop
        for step in self.steps:
            kernel, stride, margin = step.kernel[axis], step.stride[axis], step.margin[axis]
            size = (size + 2 * margin - kernel) // stride + 1
            first, stop = (first + margin - kernel) // stride + 1, (stop - 1 + margin) // stride + 1
            first = min(max(first, 0), size - 1)
            stop = max(min(stop, size), first + 1)  # at least one, even if no window sees the change
        changed = slice(first, stop)
        for step in reversed(self.steps):
            first = first * step.stride[axis] - step.margin[axis]
            stop = (stop - 1) * step.stride[axis] - step.margin[axis] + step.kernel[axis]
        return slice(first, stop), changed, size

    @property
    def number(self) -> int:
        """This layer's number in the memory."""
        if self._number is None:
            self._number = self.memory.add(self.area, self.values)
        return self._number

    def part(self, area: Area) -> Tensor:
        """The maps in some area, before the steps; 0 outside the maps."""
        number = self.number
        if area == self.area:
            return self.values
        everything = (slice(0, self.extent[0]), slice(0, self.extent[1]))
        inside = _shared(area, everything)
        shape = (*self.values.shape[:2], *(one.stop - one.start for one in area))
        fast = torch.channels_last  # in which pools are vectorised on a CPU
        part = torch.empty(shape, dtype=self.values.dtype, device=self.values.device, memory_format=fast)
        if inside != area:
            part.zero_()
        if _shared(inside, self.area) != inside:
            part[:, :, *_within(inside, area)] = self.memory.kept[number][:, :, *inside]
        both = _shared(inside, self.area)
        if all(one.start < one.stop for one in both):
            part[:, :, *_within(both, area)] = self.values[:, :, *_within(both, self.area)]
        return part

    def whole(self) -> Tensor:
        """The whole maps, (B, C, H, W)."""
        done = self.done
        return done.part((slice(0, done.extent[0]), slice(0, done.extent[1]))).clone()

    def then(self, step: Step) -> "Maps":
        """The maps after another step; what a convolution sees is kept, as it would cost most to compute again."""
        before = self.done if step.is_convolution else self
        return Maps(before.memory, before.values, before.area, before.extent, (*before.steps, step))

    @property
    def shape(self) -> torch.Size:
        """Of the whole maps."""
        done = self.done
        return torch.Size((*done.values.shape[:2], *done.extent))

    def size(self, dim: int | None = None) -> torch.Size | int:
        """As of a tensor."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Always 4."""
        return 4

    ndim = property(dim)

    def __len__(self) -> int:
        return len(self.values)


class Vector(StandIn):
    """All values of some maps, in a row: (B, C * H * W)."""

    def __init__(self, maps: Maps) -> None:
        self.maps = maps.done

    @classmethod
    def compute(cls, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As of `Maps`."""
        return Maps.compute(func, args, kwargs)

    def whole(self) -> Tensor:
        """All of them."""
        return self.maps.whole().flatten(1)

    def dim(self) -> int:
        """Always 2."""
        return 2

    ndim = property(dim)

    def __len__(self) -> int:
        return len(self.maps)


def _shared(one: Area, other: Area) -> Area:
    """What two areas have in common; without a row or a column where that is nothing."""
    rows, columns = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return rows, columns


def _within(area: Area, origin: Area) -> Area:
    """The same area, counted from the beginning of another."""
    rows, columns = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(area, origin, strict=True))
    return rows, columns


def _result(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    places = [place for place, one in enumerate(args) if isinstance(one, Maps)]
    found: Any = None
    if len(places) == 1:
        maps, others = args[places[0]], args[1:]
        if name in SHAPES:
            shape = func(torch.empty(maps.shape, device="meta"), *others, **kwargs).shape
            found = Vector(maps) if shape == (len(maps), maps.shape[1:].numel()) else None
        elif step := step_of(name, func, places[0], args, kwargs):
            maps.memory.expect_constant((*args, *kwargs.values()))
            found = maps.then(step)
    elif len(places) == len(args) == 2 and name in ARITHMETIC:
        found = _sum(func, *args, **kwargs)
    elif name == "linear" and isinstance(args[0], Vector):
        found = _linear(args[0], *args[1:], **kwargs)
    elif name == "dropout" and isinstance(args[0], Vector) and not kwargs.get("training", True):
        found = args[0]
    return func(*_whole(args), **_whole(kwargs)) if found is None else found


def _whole(values: Any) -> Any:
    """The same with whole tensors in place of maps, also in lists."""
    if isinstance(values, Maps | Vector):
        return values.whole()
    if isinstance(values, dict):
        return {key: _whole(value) for key, value in values.items()}
    return type(values)(map(_whole, values)) if type(values) in (tuple, list) else values


def _sum(func: Callable[..., Tensor], one: Maps, other: Maps, **kwargs: Any) -> Maps | None:
    """A sum, difference, product or quotient of maps of one size."""
    one, other = one.done, other.done
    if one.extent != other.extent:
        return None
    rows, columns = (
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one.area, other.area, strict=True)
    )
    values = func(one.part((rows, columns)), other.part((rows, columns)), **kwargs)
    return Maps(one.memory, values, (rows, columns), one.extent)


def _linear(vector: Vector, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    maps, memory, number = vector.maps, vector.maps.memory, vector.maps.number
    if len(memory.kept) <= number:  # the first images
        output = F.linear(maps.values.flatten(1), weight, bias)
    else:
        change = maps.values - memory.kept[number][:, :, *maps.area]
        seen = weight.unflatten(1, maps.shape[1:])[:, :, *maps.area]
        output = F.linear(change.flatten(1), seen.flatten(1)).add_(memory.kept[number + 1])
    memory.add((), output)
    return output
