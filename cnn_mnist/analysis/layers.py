"""The layers of any network and their outputs, found by running it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cnn_mnist.checks import untouched

CONVOLUTIONS, LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d), (nn.Linear,)
NORMALISATIONS = {"batch_norm", "layer_norm", "group_norm", "instance_norm"}  # by the name of torch's function
POOLS = {"max_pool2d": "MaxPool", "avg_pool2d": "AvgPool", "adaptive_avg_pool2d": "AvgPool"}
POOLS |= {"adaptive_max_pool2d": "MaxPool"}
PASSES = {"dropout", "dropout2d", "alpha_dropout", "max_pool2d"}  # between a layer and its activation function
ACTIVATIONS = {"relu", "relu6", "leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish", "softplus"}
ACTIVATIONS |= {"tanh", "sigmoid", "hardtanh", "hardswish", "hardsigmoid", "logsigmoid", "softsign"}


class Output(NamedTuple):
    """A layer's output: `before` its activation function, with its normalisation, and `after` it.

    Where none of torch's activation functions follows, the two are the same. A max-pool between the layer and its
    activation function is left out, which makes no difference after both if the function never falls, as ReLU.
    """

    before: Tensor
    after: Tensor


class Call(NamedTuple):
    """A layer that was called, or a pool: its `kind`, its name among the network's modules ("" of a pool), its module.

    `kind` is `conv`, `fc`, `norm`, `pool` or `other`; sizes are without the batch.
    """

    kind: str
    type: str
    name: str
    module: nn.Module | None
    input: tuple[int, ...]
    output: tuple[int, ...]


class Trace(NamedTuple):
    """A run of a network: every call in order, and the outputs of convolutions and linear layers.

    `gradients` is filled by autograd: of what `after` holds, if the network computed it as such, otherwise of `before`.
    """

    calls: list[Call]
    outputs: dict[str, Output]
    gradients: dict[str, Tensor]
    result: Tensor


def trace(network: nn.Module, images: Tensor) -> Trace:
    """Run a network and watch its layers.

    If a layer is called several times, its first output is kept.

    Args:
        network: Any module, in eval mode.
        images: What it takes.
    """
    names = {module: name for name, module in network.named_modules() if any(True for _ in _own(module))}
    watch = _Watch()
    handles = [
        module.register_forward_hook(lambda module, args, output, name=name: watch.called(name, module, args, output))
        for module, name in names.items()
    ]
    try:
        with watch:
            result = network(images)
    finally:
        for handle in handles:
            handle.remove()
    return Trace(watch.calls, watch.outputs, watch.gradients, result)


def example(network: nn.Module) -> Tensor:
    """An empty image (1, 1, 28, 28) of the network's own dtype, on its device."""
    first = next((one for one in network.parameters() if one.is_floating_point()), torch.empty(0))
    return first.new_zeros(1, 1, 28, 28)


def walk(network: nn.Module) -> Trace:
    """Trace an empty image through a network, in eval mode and without gradients."""
    with torch.no_grad(), untouched(network):
        return trace(network, example(network))


def convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    """The convolutions of a network by name, in the order in which an image meets them."""
    return {call.name: call.module for call in walk(network).calls if isinstance(call.module, nn.Conv2d)}


def filters(network: nn.Module) -> dict[str, Tensor]:
    """The weights (C, C', K, K) of the layers to look at; of a first linear layer on the image, (C, 1, 28, 28)."""
    found = convolutions(network)
    if chosen := {name: found[name].weight for name in main_layers(network) if name in found}:
        return chosen
    first = next((call for call in walk(network).calls if isinstance(call.module, nn.Linear)), None)
    if first is None or first.input != (28 * 28,):
        return {}
    assert isinstance(first.module, nn.Linear)
    return {first.name: first.module.weight.view(-1, 1, 28, 28)}


def key_of(name: str) -> str:
    """The name of a layer in records and files, where a dot means something else."""
    return name.replace(".", "_")


def main_layers(network: nn.Module, most: int = 4) -> list[str]:
    """The layers that show what a network has learnt: its convolutions, or hidden linear layers where it has none.

    Convolutions by single pixels, and those whose maps are single pixels, are left out. Of more than `most`, the first,
    the last, and some evenly between.
    """
    found = walk(network).calls
    spatial = [
        call.name
        for call in found
        if isinstance(call.module, nn.Conv2d) and max(call.module.kernel_size) > 1 and max(call.output[1:]) > 1
    ]
    linear = [c.name for c in found if c.kind == "fc"][:-1]
    names = list(dict.fromkeys(spatial or linear))
    if len(names) <= most:
        return names
    return [names[round(k * (len(names) - 1) / (most - 1))] for k in range(most)]


def outputs(network: nn.Module, images: Tensor, names: Iterable[str]) -> dict[str, Output]:
    """The outputs of the named layers for images, with gradients where they are enabled.

    Raises:
        ValueError: There is no such layer.
    """
    found, names = trace(network, images).outputs, list(names)
    if unknown := [name for name in names if name not in found]:
        raise ValueError(f"the network has no layer {unknown[0]}, but {', '.join(found)}")
    return {name: found[name] for name in names}


class _Watch(TorchFunctionMode):
    """Intercepts every torch function that a network calls, and follows the outputs of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.outputs: dict[str, Output] = {}
        self.gradients: dict[str, Tensor] = {}
        self.followed: dict[int, tuple[str, Tensor]] = {}  # by id, which stays taken while the tensor is held

    def called(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Note the call of a module."""
        given = next((one for one in inputs if isinstance(one, Tensor)), None)
        made = output[0] if isinstance(output, tuple) else output
        if not isinstance(made, Tensor) or given is None:
            return
        kind = _kind(module)
        kind_name = type(module).__name__.removesuffix("1d").removesuffix("2d").removeprefix("Parametrized")
        kind_name = "FC" if kind == "fc" else kind_name
        self.calls.append(Call(kind, kind_name, name, module, tuple(given.shape[1:]), tuple(made.shape[1:])))
        if kind in ("conv", "fc") and name not in self.outputs:
            self._keep(name, made)
            self.followed[id(made)] = (name, made)

    def _keep(self, name: str, made: Tensor, before: Tensor | None = None) -> None:
        """Keep a copy of a layer's output, which the network may overwrite, and the first gradient to come back.

        That is the gradient of what was computed last.
        """

        def note(gradient: Tensor) -> None:  # what a hook returned would take the gradient's place
            self.gradients.setdefault(name, gradient)

        copied = made.clone()
        self.outputs[name] = Output(copied if before is None else before, copied)
        if made.requires_grad:
            made.register_hook(note)

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        what = getattr(func, "__name__", "")
        is_in_place = what.startswith("__i") or (what.endswith("_") and not what.startswith("_"))
        is_in_place = is_in_place or bool(kwargs.get("inplace"))
        what = what.strip("_")
        source = self.followed.get(id(args[0])) if args and isinstance(args[0], Tensor) else None
        made = func(*args, **kwargs)
        if what in POOLS and isinstance(made, Tensor):
            given = args[0] if args else kwargs["input"]
            self.calls.append(Call("pool", POOLS[what], "", None, tuple(given.shape[1:]), tuple(made.shape[1:])))
        if source is None or not isinstance(made, Tensor):
            return made
        name, before = source[0], self.outputs[source[0]].before
        if what in NORMALISATIONS:
            self._keep(name, made)
        elif what in ACTIVATIONS:
            if made.shape == before.shape:
                self._keep(name, made, before)
            else:
                self.outputs[name] = Output(before, func(before.clone(), *args[1:], **kwargs))
            self.followed = {place: one for place, one in self.followed.items() if one[0] != name}
        if what in PASSES or what in NORMALISATIONS:
            self.followed[id(made)] = (name, made)
        elif is_in_place:
            self.followed.pop(id(args[0]), None)
        return made


def _own(module: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of a layer; of a module that only holds others, none."""
    is_layer = isinstance(module, (*CONVOLUTIONS, *LINEAR, nn.MultiheadAttention))  # parametrised ones have children
    is_layer = is_layer or not any(True for _ in module.children())
    return module.parameters() if is_layer else iter(())


def _kind(module: nn.Module) -> str:
    if isinstance(module, CONVOLUTIONS):
        return "conv"
    if isinstance(module, LINEAR):
        return "fc"
    return "norm" if "Norm" in type(module).__name__ else "other"
