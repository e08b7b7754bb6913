"""A network of images in which a small area changes: what the change cannot reach is not computed again.

The network is exported to a graph of operations without side effects, with its weights as constants. Convolutions,
pools, sums and functions of single values compute the part of their maps that the change reaches; what they see around
it is that of the images that were kept. A linear layer adds the change, times the weights that see it. Any other
operation gets whole tensors.
"""

import contextlib
import copy
import io
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Node
from torch.fx.node import map_arg

from cnn_mnist.attacks.autoattack.changed_maps import Area, Maps, Memory, Vector
from cnn_mnist.attacks.autoattack.steps import Step, is_per_channel, is_pointwise, step_of
from cnn_mnist.network import HOOKS

MOST_KEPT = 2**30  # bytes
PRECISE = {torch.float32, torch.float64}  # what changes are added to again and again without loss
SHAPES = {"aten.view.default", "aten._unsafe_view.default"}


class PartialNetwork:
    """A network as a graph, and what its layers have for the images that were kept.

    Args:
        network: In eval mode, with frozen parameters; images to logits (B, C).
        images: Any (B, C, H, W) of the size, dtype and device that it is to be used for.

    Raises:
        ValueError: The network has effects beside its result, is random, or has hooks.
        Exception: Whatever its export may raise.
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        if any(getattr(module, name) for module in network.modules() for name in HOOKS):
            raise ValueError("the network has hooks, which would not be called")
        if torch.is_autocast_enabled(images.device.type):
            raise ValueError("the layers compute in less than float32")
        example = images[:1].expand(2, *images.shape[1:])  # a batch of one would be taken for a constant
        shapes = ({0: torch.export.Dim("B")},)
        own = copy.deepcopy(network)  # which may remember what it was called with
        with contextlib.redirect_stderr(io.StringIO()):  # on failure, torch prints the graph
            program = torch.export.export(own, (example,), dynamic_shapes=shapes, strict=False).run_decompositions({})
        signature = program.graph_signature
        if signature.buffers_to_mutate or signature.user_inputs_to_mutate or len(signature.user_outputs) != 1:
            raise ValueError("the network has effects beside its result")
        tensors = {**program.state_dict, **program.constants}
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        names |= signature.inputs_to_lifted_tensor_constants
        self.constants: dict[Node, Any] = {}
        self.operations: dict[Node, str] = {}  # with their names
        self.weights: dict[Node, Tensor] = {}  # of linear layers after maps, (H, W, C, K)
        self.input: Node
        for node in program.graph.nodes:
            if node.op == "placeholder" and node.name in names:
                self.constants[node] = tensors[names[node.name]].detach()
            elif node.op == "placeholder":
                self.input = node
            elif node.op == "output":
                self.output = node.args[0][0]
            elif not node.users:
                continue  # an assertion about the images
            elif node.op != "call_function" or torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                raise ValueError(f"{node.name} is random, or more than an operation")
            elif all(one in self.constants for one in node.all_input_nodes):
                self.constants[node] = _call(node, *map_arg((node.args, node.kwargs), self.constants.__getitem__))
            else:
                self.operations[node] = str(node.target)
        self.memory = Memory()

    def start(self, images: Tensor) -> None:
        """Keep other images, (B, C, H, W).

        Raises:
            ValueError: That would take too much memory, or a layer's values are not precise enough to add to.
        """
        for some in (images[:1], images):
            self.memory = Memory()
            self.logits(some, Area(slice(0, images.shape[2]), slice(0, images.shape[3])))
            layers = [values for _, values in self.memory.last.values()]
            num_bytes = sum(values.nbytes for values in layers) // len(some) * len(images)
            if num_bytes > MOST_KEPT or not {values.dtype for values in layers} <= PRECISE:
                raise ValueError(f"{num_bytes:,} bytes would have to be kept, in {layers[-1].dtype}")
        self.memory.kept = {node: values.clone() for node, (_, values) in self.memory.last.items()}

    def logits(self, images: Tensor, area: Area) -> Tensor:
        """Logits (B, C) of images that differ from those that were kept in an area."""
        maps = Maps(self.memory, self.input, images[:, :, *area], area, (images.shape[2], images.shape[3]))
        results: dict[Node, Any] = {**self.constants, self.input: maps}
        for node in self.operations:
            results[node] = self._result(node, results)
        logits: Tensor = _whole(results[self.output])
        return logits

    def keep(self, is_kept: Tensor) -> None:
        """Keep the last images, bool (B,)."""
        index = is_kept.nonzero()[:, 0]
        for node, kept in self.memory.kept.items():
            area, values = self.memory.last[node]
            changed = kept if area is None else kept[:, :, *area]
            changed.index_copy_(0, index, values.index_select(0, index))

    def select(self, is_left: Tensor) -> None:
        """Drop all images but some, bool (B,)."""
        self.memory.kept = {node: kept[is_left] for node, kept in self.memory.kept.items()}

    def _result(self, node: Node, results: dict[Node, Any]) -> Any:
        """What an operation returns: `Maps` or `Vector` where a part of it is enough, otherwise whole tensors."""
        args: Any
        kwargs: Any
        args, kwargs = map_arg((node.args, node.kwargs), results.__getitem__)
        varying = [results[one] for one in node.all_input_nodes if one not in self.constants]
        name, first = self.operations[node], args[0] if args else None
        found: Any = None
        if varying and all(isinstance(one, Maps) for one in varying):
            found = (self._after if len(varying) == 1 else self._combined)(node, varying, args, kwargs)
        elif isinstance(first, Vector) and name == "aten.linear.default" and len(varying) == 1:
            found = self._linear(node, first.maps, *args[1:])
        if isinstance(first, Maps) and name == "aten.sym_size.int" and args[1] == 0:
            found = len(first.values)
        if isinstance(first, Maps) and name in SHAPES:
            maps = first.done()
            size = maps.values.shape[1] * maps.extent[0] * maps.extent[1]
            if list(args[1]) in ([len(maps.values), size], [len(maps.values), -1], [-1, size]):
                found = Vector(maps)
        return _call(node, _whole(args), _whole(kwargs)) if found is None else found

    def _after(self, node: Node, varying: list[Maps], args: Any, kwargs: Any) -> Maps | None:
        """What an operation makes of some maps; None: it needs the whole of them."""
        maps, is_first = varying[0], args[0] is varying[0]
        if is_first and (self.operations[node] == "aten.clone.default" or node.target is operator.getitem):
            return maps  # the step of a batch normalisation gives the first of its results alone
        if self._is_pointwise(node, args, kwargs):
            return maps.then(node, Step(lambda values: _call(node, *_replaced((args, kwargs), lambda _: values))))
        step = step_of(node.target, *args[1:], **kwargs) if is_first else None
        return maps.then(node, step) if step else None

    def _combined(self, node: Node, varying: list[Maps], args: Any, kwargs: Any) -> Maps | None:
        """Several maps added up, multiplied, side by side and the like; None: that needs the whole of them."""
        done = [maps.done() for maps in varying]
        is_beside = self.operations[node] == "aten.cat.default" and args[1:] == (1,)
        if not (is_beside or self._is_pointwise(node, args, kwargs)) or len({maps.extent for maps in done}) > 1:
            return None
        area = done[0].area
        for maps in done[1:]:
            area = area.around(maps.area)
        parts = {id(maps): one.part(area) for maps, one in zip(varying, done, strict=True)}
        values = _call(node, *_replaced((args, kwargs), lambda maps: parts[id(maps)]))
        return Maps(self.memory, node, values, area, done[0].extent)

    @staticmethod
    def _is_pointwise(node: Node, args: Any, kwargs: Any) -> bool:
        """Whether each value depends on those in its place, in the same way for all images, rows and columns."""
        others = (one for one in (*args, *kwargs.values()) if not isinstance(one, Maps))
        return is_pointwise(node.target) and all(map(is_per_channel, others))

    def _linear(self, node: Node, maps: Maps, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        change = maps.part(maps.area)
        if change.shape[2:] == maps.extent:
            output = F.linear(change.flatten(1), weight, bias)
        else:
            change = change - self.memory.kept[maps.node][:, :, *maps.area]
            if node not in self.weights:
                self.weights[node] = weight.unflatten(1, (-1, *maps.extent)).permute(2, 3, 1, 0).contiguous()
            seen = self.weights[node][*maps.area].flatten(0, 2)
            output = self.memory.kept[node].addmm(change.permute(0, 2, 3, 1).flatten(1), seen)
        self.memory.last[node] = None, output
        return output


def _call(node: Node, args: Any, kwargs: Any) -> Any:
    assert callable(node.target)
    return node.target(*args, **kwargs)


def _replaced(values: Any, of: Callable[[Any], Any]) -> Any:
    """The same arguments with something else in place of `Maps` and `Vector`, also in lists."""
    if isinstance(values, Maps | Vector):
        return of(values)
    if isinstance(values, dict):
        return {key: _replaced(value, of) for key, value in values.items()}
    return [_replaced(value, of) for value in values] if isinstance(values, list | tuple) else values


def _whole(values: Any) -> Any:
    return _replaced(values, lambda one: one.whole())
