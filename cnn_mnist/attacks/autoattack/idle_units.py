"""The lab report's network without the units that no image can activate: the same function with fewer operations.

Training to withstand attacks leaves many of them: more than half of the filters after `experiment=certified`. What they
return is always 0, so an attack can do without them.
"""

import torch
from torch import Tensor, nn

from cnn_mnist.checks import Logits
from cnn_mnist.network import CNN, folded, is_report_network


def without_idle_units(model: nn.Module, images: Tensor) -> CNN | None:
    """The same function of images in [0, 1], up to rounding, with frozen parameters; None for any other network.

    Batch normalisation is made part of the layers before it. A unit is left out if interval bounds prove that its ReLU
    returns 0 for every image.

    Args:
        model: In eval mode; it may be wrapped in `Logits`.
        images: Images (N, C, H, W) of the shape and dtype that it is to be used for.
    """
    inner = model.model if isinstance(model, Logits) else model
    return _reduced(inner) if is_report_network(inner, images) else None


@torch.no_grad()
def _reduced(network: CNN) -> CNN:
    with torch.device("meta"):  # draws no random numbers
        reduced = CNN(kernel_size=network.kernel_size, num_classes=network.fc2.out_features)
    highest = torch.ones(1, device=network.fc1.weight.device)  # output of each channel of the layer before
    is_active = highest > 0
    for name, norm in (("conv1", network.norm1), ("conv2", network.norm2), ("fc1", network.norm3)):
        layer = getattr(network, name)
        weight, bias = folded(layer, norm)
        weight = weight.unflatten(1, (len(is_active), -1))[:, is_active]  # fc1: by channel and position
        most = weight.flatten(2).clamp(min=0).sum(2) @ highest + bias
        is_active = most > 0
        is_active[most.argmax()] = True  # a layer needs a unit
        highest = most[is_active].clamp(min=0)
        weight = weight[is_active].flatten(1, 2) if isinstance(layer, nn.Conv2d) else weight[is_active].flatten(1)
        setattr(reduced, name, _layer(layer, weight, bias[is_active]))
    reduced.fc2 = _layer(network.fc2, network.fc2.weight[:, is_active], network.fc2.bias)  # type: ignore[assignment]
    return reduced.eval()


def _layer(like: nn.Module, weight: Tensor, bias: Tensor) -> nn.Module:
    """A layer of the same kind with other parameters."""
    num_outputs, num_inputs = weight.shape[:2]
    layer: nn.Conv2d | nn.Linear = nn.Linear(num_inputs, num_outputs, device="meta")
    if isinstance(like, nn.Conv2d):
        side = like.kernel_size[0]
        layer = nn.Conv2d(num_inputs, num_outputs, side, padding=side // 2, device="meta")
    layer.weight, layer.bias = (nn.Parameter(values.contiguous(), requires_grad=False) for values in (weight, bias))
    return layer
