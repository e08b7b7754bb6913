"""Maps of which only an area has changed."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import Node

from cnn_mnist.attacks.autoattack.steps import Step


class Area(NamedTuple):
    """Some rows and columns of maps."""

    rows: slice
    columns: slice

    def shared(self, other: "Area") -> "Area":
        """What two areas have in common; without a row or a column where that is nothing."""
        return Area(*(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(self, other, strict=True)))

    def around(self, other: "Area") -> "Area":
        """The smallest area with both in it."""
        return Area(*(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(self, other, strict=True)))

    def within(self, origin: "Area") -> "Area":
        """The same area, counted from the beginning of another."""
        return Area(*(slice(a.start - b.start, a.stop - b.start) for a, b in zip(self, origin, strict=True)))


class _Along(NamedTuple):
    """Some rows, or columns: what has to be `seen` to compute what has `changed`, of maps of some `size`."""

    seen: slice
    changed: slice
    size: int


class Memory:
    """What layers had for the images that were kept, and what the last images change in them.

    Attributes:
        kept: The values of each layer that is needed, by its operation.
        last: What the same layers have for the last images, and in which area that may differ; None: everywhere.
    """

    def __init__(self) -> None:
        self.kept: dict[Node, Tensor] = {}
        self.last: dict[Node, tuple[Area | None, Tensor]] = {}


class Maps:
    """The maps (B, C, H, W) that an operation returns: those of the images that were kept, except in an area.

    Args:
        memory: Where the layers' values for those images are.
        node: The operation.
        values: What the area has, (B, C, h, w), before the steps.
        area: What has changed, before the steps.
        extent: Height and width of the whole maps, before the steps.
        steps: Operations that wait. They run together, so that only the first needs values around the change, and only
            the first may be a convolution.
    """

    def __init__(
        self,
        memory: Memory,
        node: Node,
        values: Tensor,
        area: Area,
        extent: tuple[int, int],
        steps: tuple[tuple[Node, Step], ...] = (),
    ) -> None:
        self.memory, self.node, self.values, self.area = memory, node, values, area
        self.extent, self.steps = extent, steps
        self._done: Maps | None = None

    def then(self, node: Node, step: Step) -> "Maps":
        """The maps after another operation; what a convolution sees is kept, as it would cost most to compute again."""
        before = self.done() if step.is_convolution else self
        return Maps(
            before.memory, before.node, before.values, before.area, before.extent, (*before.steps, (node, step))
        )

    def done(self) -> "Maps":
        """The same maps, with no steps left."""
        if not self.steps:
            return self
        if self._done is None:
            rows, columns = self._along(0), self._along(1)
            is_in_place = all(step.kernel == step.stride == (1, 1) and step.margin == (0, 0) for _, step in self.steps)
            values = self.values if is_in_place else self.part(Area(rows.seen, columns.seen))
            for _, step in self.steps:
                values = step.run(values)
            area, extent = Area(rows.changed, columns.changed), (rows.size, columns.size)
            self._done = Maps(self.memory, self.steps[-1][0], values, area, extent)
        return self._done

    def _along(self, axis: int) -> _Along:
        """How far the steps reach along rows (axis 0) or columns."""
        size, first, stop = self.extent[axis], self.area[axis].start, self.area[axis].stop
        for _, step in self.steps:
            kernel, stride, margin = step.kernel[axis], step.stride[axis], step.margin[axis]
            size = (size + 2 * margin - kernel) // stride + 1
            first, stop = (first + margin - kernel) // stride + 1, (stop - 1 + margin) // stride + 1
            first = min(max(first, 0), size - 1)
            stop = max(min(stop, size), first + 1)  # at least one, even if no window sees the change
        changed = slice(first, stop)
        for _, step in reversed(self.steps):
            first = first * step.stride[axis] - step.margin[axis]
            stop = (stop - 1) * step.stride[axis] - step.margin[axis] + step.kernel[axis]
        return _Along(slice(first, stop), changed, size)

    def part(self, area: Area) -> Tensor:
        """The maps in some area, before the steps, from what has changed and what was kept; 0 outside the maps."""
        self.memory.last[self.node] = self.area, self.values
        if area == self.area:
            return self.values
        inside = area.shared(Area(slice(0, self.extent[0]), slice(0, self.extent[1])))
        changed = inside.shared(self.area)
        shape = (*self.values.shape[:2], *(one.stop - one.start for one in area))
        fast = torch.channels_last  # in which pools are vectorised on a CPU
        part = torch.empty(shape, dtype=self.values.dtype, device=self.values.device, memory_format=fast)
        for axis, (a, b) in enumerate(zip(area, inside, strict=True), 2):
            part.narrow(axis, 0, b.start - a.start).zero_()
            part.narrow(axis, b.stop - a.start, a.stop - b.stop).zero_()
        if changed != inside:
            part[:, :, *inside.within(area)] = self.memory.kept[self.node][:, :, *inside]
        if all(one.start < one.stop for one in changed):
            part[:, :, *changed.within(area)] = self.values[:, :, *changed.within(self.area)]
        return part

    def whole(self) -> Tensor:
        """The whole maps, (B, C, H, W), as a tensor of their own."""
        done = self.done()
        return done.part(Area(slice(0, done.extent[0]), slice(0, done.extent[1]))).clone(
            memory_format=torch.contiguous_format
        )


class Vector(NamedTuple):
    """All values of some maps, in a row: (B, C * H * W)."""

    maps: Maps

    def whole(self) -> Tensor:
        """All of them."""
        return self.maps.whole().flatten(1)
