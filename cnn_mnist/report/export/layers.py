"""Any network of common layers, as a list of operations that the live page carries out."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Node

LEVELS = 32767  # of an int16, on each side of zero
KNOWN = {  # operations of an exported graph, by the names that the page has for them
    "aten.conv2d.default": "conv2d",
    "aten.conv2d.padding": "conv2d",
    "aten.linear.default": "linear",
    "aten.batch_norm.default": "affine",
    "aten.relu.default": "relu",
    "aten.relu_.default": "relu",
    "aten.tanh.default": "tanh",
    "aten.sigmoid.default": "sigmoid",
    "aten.max_pool2d.default": "max_pool2d",
    "aten.avg_pool2d.default": "avg_pool2d",
    "aten.adaptive_avg_pool2d.default": "mean",
    "aten.mean.dim": "mean",
    "aten.add.Tensor": "add",
    "aten.add_.Tensor": "add",
    "aten.flatten.using_ints": "same",
    "aten.view.default": "same",
    "aten.reshape.default": "same",
    "aten.dropout.default": "same",
    "aten.feature_dropout.default": "same",
}
NAMES = "convolutions, linear layers, batch normalisation, ReLU, tanh, sigmoid, max and average pooling, and sums"
POINTWISE = ("affine", "relu", "tanh", "sigmoid")  # what is shown with the convolution before it
MOST_MAPS = 4  # convolutions whose feature maps are shown
BUDGET = 1_000_000  # multiplications of a forward pass up to which the page's occlusion map has a stride of 1


class Layers:
    """A network's operations in order, and its numbers: weights rounded to int16, the rest float32.

    Attributes:
        operations: Plain values for the page. `from`: the operations whose results each takes, 0 is the image; `shape`
            without the batch.
        rounded: What the page computes, in PyTorch: the operations one after another, with the rounded weights.

    Raises:
        ValueError: The network cannot be exported, or has an operation that the page does not know.
    """

    def __init__(self, network: nn.Module) -> None:
        own = copy.deepcopy(network).cpu().eval()
        try:
            program = torch.export.export(own, (torch.zeros(1, 1, 28, 28),))
        except Exception as error:  # whatever tracing the user's own code can raise
            raise ValueError(f"{_first_line(error)}") from error
        signature = program.graph_signature
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        tensors: dict[str, Tensor] = {}
        tensors |= dict(own.named_parameters(remove_duplicate=False))
        tensors |= dict(own.named_buffers(remove_duplicate=False))
        self._values = {node: tensors[name].detach() for node, name in names.items()}
        self.operations: list[dict[str, Any]] = []
        self._floats: list[Tensor] = []
        self._levels: list[Tensor] = []
        self._used: list[tuple[Tensor, ...]] = []  # the weights of each operation, rounded, and its biases
        place = dict.fromkeys(map(str, signature.user_inputs), 0)  # the image; constants of the network are not placed
        for node in program.graph.nodes:
            if node.op == "call_function":
                kind = KNOWN.get(str(node.target))
                if kind is None:
                    raise ValueError(f"the page does not know {node.target}: it knows {NAMES}")
                self._used.append(())
                self.operations.append(self._operation(kind, node, place))
                place[node.name] = len(self.operations)
                if "_." in str(node.target).removesuffix(".default"):  # in place: its input has changed, too
                    place[node.args[0].name] = len(self.operations)
        if [place.get(str(name)) for name in signature.user_outputs] != [len(self.operations)]:
            raise ValueError("the page takes networks whose last operation gives the logits")
        self.rounded = _Carried(self.operations, self._used).eval()

    def _operation(self, kind: str, node: Node, place: dict[str, int]) -> dict[str, Any]:
        sources = [place[one.name] for one in node.args if isinstance(one, Node) and one.name in place]
        found: dict[str, Any] = {"op": kind, "from": sources, "shape": list(node.meta["val"].shape[1:])}
        arguments: list[Any] = list(node.args)
        before = [one.meta["val"].shape[1:] for one in node.args if isinstance(one, Node) and one.name in place]
        if kind == "add" and (len(sources) != 2 or node.kwargs or before[0] != before[1]):
            raise ValueError("the page adds the results of two layers, of one shape, and nothing else")
        if kind != "add" and len(sources) != 1:
            raise ValueError(f"the page does not know {node.target} of {len(sources)} results")
        if kind == "linear" and len(before[0]) != 1:
            raise ValueError("the page knows linear layers of vectors, and not of several at once")
        if kind in ("conv2d", "linear"):
            weight = self._value(arguments[1])
            bias = self._value(arguments[2]) if len(arguments) > 2 and arguments[2] is not None else None
            found["weight"] = list(weight.shape)
            self._store(weight, torch.zeros(len(weight)) if bias is None else bias)
        if kind == "conv2d":
            found["stride"] = _pair(arguments, 3, 1)
            padding = arguments[4] if len(arguments) > 4 else 0
            same = [(side - 1) // 2 for side in found["weight"][2:]]
            found["padding"] = (
                {"same": same, "valid": [0, 0]}[padding] if isinstance(padding, str) else _pair(arguments, 4, 0)
            )
            found["groups"] = arguments[6] if len(arguments) > 6 else 1
            if _pair(arguments, 5, 1) != [1, 1]:
                raise ValueError("the page does not know dilated convolutions")
        if kind == "affine":
            weight, bias, mean, var = map(self._value, arguments[1:5])
            eps = arguments[7]
            assert isinstance(eps, float)
            scale = weight * torch.rsqrt(var + eps)
            self._used[-1] = (scale, bias - mean * scale)
            self._floats += self._used[-1]
        if kind in ("max_pool2d", "avg_pool2d"):
            found["kernel"] = _pair(arguments, 1, 1)
            found["stride"] = _pair(arguments, 2, 0) if len(arguments) > 2 and arguments[2] else found["kernel"]
            sides = zip(before[0][1:], found["kernel"], found["stride"], strict=True)
            fitted = [(side - kernel) // stride + 1 for side, kernel, stride in sides]
            if found["shape"][1:] != fitted:
                raise ValueError("the page knows pooling of whole windows, without padding, dilation or a divisor")
        if kind == "mean":
            axes = sorted(one % 4 for one in arguments[1]) if "mean.dim" in str(node.target) else [2, 3]
            if len(before[0]) != 3 or axes != [2, 3] or found["shape"][1:] not in ([], [1, 1]):
                raise ValueError("the page averages whole feature maps, and nothing else")
        return found

    def _value(self, node: object) -> Tensor:
        if not isinstance(node, Node) or node.name not in self._values:
            raise ValueError(f"the page needs weights and statistics that are stored, not {node}")
        return self._values[node.name]

    def _store(self, weight: Tensor, bias: Tensor) -> None:
        scale = (weight.flatten(1).abs().amax(1) / LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
        wide = scale.view(-1, *[1] * (weight.ndim - 1))
        level = (weight / wide).round().to(torch.int16)
        self._used[-1] = (level * wide, bias)
        self._floats += [bias, scale]
        self._levels.append(level)

    def content(self) -> bytes:
        """Float32 numbers of every operation in order (bias, scale), then the int16 weights, little-endian."""
        floats = [one.float().numpy().astype("<f4").tobytes() for one in self._floats]
        return b"".join([*floats, *(one.numpy().astype("<i2").tobytes() for one in self._levels)])

    @property
    def description(self) -> dict[str, Any]:
        """What the page needs to read `content`."""
        return {"operations": self.operations, "maps": self.maps}

    @property
    def maps(self) -> list[dict[str, Any]]:
        """The feature maps to show: after each of the first convolutions and what follows it pixel by pixel."""
        found: list[dict[str, Any]] = []
        for k, operation in enumerate(self.operations):
            if operation["op"] != "conv2d" or len(found) == MOST_MAPS:
                continue
            last = k
            while last + 1 < len(self.operations) and self.operations[last + 1]["op"] in POINTWISE:
                last += 1
            channels, height, width = self.operations[last]["shape"]
            title = f"Convolution {len(found) + 1}, {height} x {width}"
            size = {"channels": channels, "height": height, "width": width}
            found.append({"title": title, **size, "convolution": k, "at": last + 1})
        return found

    @property
    def stride(self) -> int:
        """The stride of the page's occlusion map: larger for networks that take longer."""
        num = 0
        for operation in self.operations:
            if operation["op"] == "conv2d":
                num += int(torch.tensor([*operation["weight"], *operation["shape"][1:]]).prod())
            elif operation["op"] == "linear":
                num += operation["weight"][0] * operation["weight"][1]
        return 1 if num <= BUDGET else 2 if num <= 8 * BUDGET else 3


class _Carried(nn.Module):
    """Operations carried out one after another: images (B, 1, 28, 28) to logits (B, C)."""

    def __init__(self, operations: list[dict[str, Any]], weights: list[tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.operations, self.weights = operations, weights

    def forward(self, images: Tensor) -> Tensor:
        results = [images]
        for operation, weights in zip(self.operations, self.weights, strict=True):
            x, *others = (results[number] for number in operation["from"])
            results.append(_carried_out(operation, weights, x, *others).reshape(len(images), *operation["shape"]))
        return results[-1]


def _carried_out(operation: dict[str, Any], weights: tuple[Tensor, ...], x: Tensor, *others: Tensor) -> Tensor:
    """One operation, as templates/play/layers.js computes it."""
    kind = operation["op"]
    if kind == "conv2d":
        weight, bias = weights
        return F.conv2d(x, weight, bias, operation["stride"], operation["padding"], groups=operation["groups"])
    if kind == "linear":
        return F.linear(x, weights[0], weights[1])
    if kind == "affine":
        return x * weights[0].view(-1, *[1] * (x.ndim - 2)) + weights[1].view(-1, *[1] * (x.ndim - 2))
    if kind in ("max_pool2d", "avg_pool2d"):
        pool = F.max_pool2d if kind == "max_pool2d" else F.avg_pool2d
        return pool(x, operation["kernel"], operation["stride"])
    if kind == "mean":
        return x.mean((2, 3))
    return x + others[0] if kind == "add" else x if kind == "same" else getattr(torch, kind)(x)


def _pair(arguments: Sequence[Any], place: int, usual: int) -> list[int]:
    """An argument for height and width, given as one number or two."""
    value = arguments[place] if len(arguments) > place else usual
    return [int(value)] * 2 if isinstance(value, int) else [int(one) for one in value] * (2 // len(value))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
