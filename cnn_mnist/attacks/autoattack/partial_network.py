"""A network of images in which a small area changes: what the change cannot reach is not computed again.

The network is exported to a graph of operations, which has no other effects, and whose weights are known. Convolutions,
pools, sums and functions of single values compute the part of their maps that the change reaches; what they see around
it is that of the images that were kept. A linear layer adds the change, times the weights that see it. Any other
operation gets whole tensors.
"""

import operator
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Node
from torch.fx.node import map_arg

from cnn_mnist.attacks.autoattack.changed_maps import Area, Maps, Memory, Vector
from cnn_mnist.attacks.autoattack.steps import Step, is_pointwise, is_the_same_everywhere, step_of
from cnn_mnist.network import HOOKS

MOST_KEPT = 2**31  # bytes
SHAPES = {"aten.view.default", "aten._unsafe_view.default", "aten.flatten.using_ints", "aten.reshape.default"}


class PartialNetwork:
    """A network as a graph, and what its layers have for the images that were kept.

    Args:
        network: In eval mode, with frozen parameters; images to logits (B, C).
        images: Some images (B, C, H, W), of which only the size matters.

    Raises:
        ValueError: The network has effects beside its result, is random, or has hooks.
        Exception: Whatever its export may raise.
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        if any(getattr(module, name) for module in network.modules() for name in HOOKS):
            raise ValueError("hooks wait for tensors")
        example = images[:1].expand(2, *images.shape[1:])  # a batch of one would be taken for a constant
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                network, (example,), dynamic_shapes=({0: torch.export.Dim("B")},), strict=False
            )
            program = program.run_decompositions({})
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
            elif all(one in self.constants for one in node.all_input_nodes) and node.all_input_nodes:
                self.constants[node] = _call(node, *map_arg((node.args, node.kwargs), self.constants.__getitem__))
            else:
                self.operations[node] = str(node.target)
        self.memory = Memory()

    def start(self, images: Tensor) -> None:
        """Keep other images, (B, C, H, W).

        Raises:
            ValueError: Too much would have to be kept with them.
        """
        self.memory = Memory()
        self.logits(images, Area(slice(0, images.shape[2]), slice(0, images.shape[3])))
        self.memory.kept = {node: values.clone() for node, (_, values) in self.memory.last.items()}
        num_bytes = sum(values.nbytes for values in self.memory.kept.values())
        if num_bytes > MOST_KEPT:
            raise ValueError(f"{num_bytes:,} bytes would have to be kept")

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
        if varying and all(isinstance(one, Maps) for one in varying):
            found = self._maps(node, varying, args, kwargs)
            if found is not None:
                return found
        if isinstance(first, Maps) and name == "aten.sym_size.int" and args[1] == 0:
            return len(first.values)
        if isinstance(first, Maps) and name in SHAPES:
            maps = first.done()
            size = maps.values.shape[1] * maps.extent[0] * maps.extent[1]
            if list(args[1]) in ([len(maps.values), size], [len(maps.values), -1], [-1, size]):
                return Vector(maps)
        if isinstance(first, Vector) and name == "aten.linear.default" and len(varying) == 1:
            return self._linear(node, first.maps, *args[1:])
        return _call(node, _whole(args), _whole(kwargs))

    def _maps(self, node: Node, varying: list[Maps], args: Any, kwargs: Any) -> Maps | None:
        """The maps that an operation makes of maps; None: it needs the whole of them."""
        first, *others = varying
        name = self.operations[node]
        is_sum = is_pointwise(node.target) and all(map(_is_combined, (*args, *kwargs.values())))
        if others and (is_sum or (name == "aten.cat.default" and args[1:] == (1,))):
            done = [one.done() for one in varying]
            if any(one.extent != done[0].extent for one in done):
                return None
            area = done[0].area
            for one in done[1:]:
                area = area.around(one.area)
            parts = {id(maps): one.part(area) for maps, one in zip(varying, done, strict=True)}
            values = _call(node, *_replaced((args, kwargs), lambda maps: parts[id(maps)]))
            return Maps(self.memory, node, values, area, done[0].extent)
        if others:
            return None
        if name == "aten.clone.default" or (node.target is operator.getitem and args[1] == 0):
            return first  # the step of a batch normalisation gives the first of its results alone
        if is_sum:
            return first.then(node, Step(lambda values: _call(node, *_replaced((args, kwargs), lambda maps: values))))
        step = step_of(node.target, *args[1:], **kwargs) if args[0] is first else None
        return first.then(node, step) if step else None

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


def _is_combined(value: Any) -> bool:
    return isinstance(value, Maps) or is_the_same_everywhere(value)


def _replaced(values: Any, of: Callable[[Any], Any]) -> Any:
    """The same arguments with something else in place of `Maps` and `Vector`, also in lists."""
    if isinstance(values, Maps | Vector):
        return of(values)
    if isinstance(values, dict):
        return {key: _replaced(value, of) for key, value in values.items()}
    return [_replaced(value, of) for value in values] if isinstance(values, list | tuple) else values


def _whole(values: Any) -> Any:
    return _replaced(values, lambda one: one.whole())
