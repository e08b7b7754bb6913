"""The lab report's network: two convolutions, two linear layers, 799,078 parameters, 31,870 neurons.

`forward` is arranged for speed and `features` for looking inside; they compute the same function of the same
parameters. What makes `forward` fast on a CPU:

- images lie channels-last in memory, in which the max-pool is vectorised;
- the pool comes before the ReLU, on a quarter of the values (max and ReLU commute);
- the gradient with respect to the image, which attacks and adversarial training need, comes from a matrix product;
- the first batch normalisation costs next to nothing. Its statistics are those of a linear map of 3x3 patches of
  the image, so they follow from the patches' mean and covariance, nine numbers and a 9x9 matrix, without looking
  at the 2.5 million values of the layer; then it is part of the filters.

Counts are those of the lab report's 3x3 filters; `kernel_size` puts its conjecture to the test that larger ones would
show clearer patterns.
"""

from typing import Any, Literal, NamedTuple, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

CHANNELS = 32
HIDDEN = 500
MOMENTUM = 0.1  # of the running statistics: PyTorch's default


class Features(NamedTuple):
    """Every hidden layer's output, after its ReLU where it has one.

    Shapes: `conv1` (B, 32, 28, 28), `pool1` (B, 32, 14, 14), `conv2` (B, 32, 14, 14), `pool2` (B, 32, 7, 7),
    `fc1` (B, 500).
    """

    conv1: Tensor
    pool1: Tensor
    conv2: Tensor
    pool2: Tensor
    fc1: Tensor


class CNN(nn.Module):
    """Images float32 (B, 1, 28, 28) in [0, 1] to logits (B, C). No normalisation of the input.

    Args:
        batchnorm: Batch normalisation between each hidden layer and its ReLU (1,128 parameters more).
        kernel_size: Height and width of the filters of both convolutions; odd, so that sizes stay as they are.
        num_classes: Number of classes, C.

    Source: lab report 2.3 and 3.1; Ioffe and Szegedy 2015 for batch normalisation.
    """

    def __init__(
        self, batchnorm: bool = False, kernel_size: Literal[3, 5, 7, 9, 11] = 3, num_classes: int = 10
    ) -> None:
        super().__init__()
        self.batchnorm = batchnorm
        self.kernel_size = kernel_size
        self.conv1 = nn.Conv2d(1, CHANNELS, kernel_size, padding=kernel_size // 2)
        self.norm1 = nn.BatchNorm2d(CHANNELS) if batchnorm else nn.Identity()
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, kernel_size, padding=kernel_size // 2)
        self.norm2 = nn.BatchNorm2d(CHANNELS) if batchnorm else nn.Identity()
        self.fc1 = nn.Linear(CHANNELS * 7 * 7, HIDDEN)
        self.norm3 = nn.BatchNorm1d(HIDDEN) if batchnorm else nn.Identity()
        self.fc2 = nn.Linear(HIDDEN, num_classes)

    def features(self, images: Tensor) -> Features:
        """Every hidden layer's output for images (B, 1, 28, 28), each layer in the lab report's order."""
        conv1 = F.relu(self.norm1(self.conv1(images.to(memory_format=torch.channels_last))))
        pool1 = F.max_pool2d(conv1, 2)
        conv2 = F.relu(self.norm2(self.conv2(pool1)))
        pool2 = F.max_pool2d(conv2, 2)
        return Features(conv1, pool1, conv2, pool2, self.hidden(pool2))

    def hidden(self, pool2: Tensor) -> Tensor:
        """The hidden linear layer (B, 500), after its ReLU, for `pool2` (B, 32, 7, 7)."""
        return F.relu(self.norm3(self.fc1(pool2.flatten(1))))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) for images (B, 1, 28, 28)."""
        x = images.to(memory_format=torch.channels_last)  # not contiguous(), which leaves one channel as it is
        x = F.relu(F.max_pool2d(self._normalised_conv1(x), 2))  # (B, 32, 14, 14)
        x = F.relu(F.max_pool2d(self.norm2(self.conv2(x)), 2))  # (B, 32, 7, 7)
        logits: Tensor = self.fc2(self.hidden(x))
        return logits

    def _normalised_conv1(self, images: Tensor) -> Tensor:
        """norm1(conv1(images)), (B, 32, 28, 28), as one convolution with normalised filters.

        Where a hook waits on either layer, or another layer stands in its place, the two are called one by one; also
        where intervals of images come without examples to take batch statistics from.
        """
        examples = getattr(images, "examples", images)  # of an interval of images, see intervals.py
        lacks_batch = examples is None and self.norm1.training
        if lacks_batch or not all(map(is_plain, (self.conv1, self.norm1))):
            maps: Tensor = self.norm1(self.conv1(images))
            return maps
        weight, bias = self.conv1.weight, self.conv1.bias
        assert bias is not None
        if type(self.norm1) is not nn.BatchNorm2d:
            return _convolution(images, weight, bias)
        mean, var = _statistics(self.norm1, examples, weight, bias)
        scale = self.norm1.weight * torch.rsqrt(var + self.norm1.eps)
        weight = weight * scale.view(-1, 1, 1, 1)
        bias = self.norm1.bias + (bias - mean) * scale
        return _convolution(images, weight, bias)


def _convolution(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The first convolution, (B, 32, 28, 28) of images (B, 1, 28, 28)."""
    is_attacked = isinstance(images, Tensor) and images.requires_grad and images.device.type == "cpu"
    if is_attacked and not weight.requires_grad and not bias.requires_grad:
        maps: Tensor = _ImageGradient.apply(images, weight, bias)
        return maps
    return F.conv2d(images, weight, bias, padding=weight.shape[-1] // 2)


class _ImageGradient(torch.autograd.Function):
    """A convolution of one channel whose gradient with respect to the image is faster than PyTorch's on a CPU.

    PyTorch runs a convolution with 32 channels in and one out, of which its kernels make little. Instead, one matrix
    product gives what each position of the output sends to each position under the filter, and these are added up.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(images, weight, bias, padding=weight.shape[-1] // 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        images, weight, _ = inputs
        ctx.save_for_backward(weight)
        ctx.save_for_forward(weight)
        ctx.dtype = images.dtype

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *others: None) -> Tensor:
        (weight,) = ctx.saved_tensors
        return F.conv2d(tangent, weight, padding=weight.shape[-1] // 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        (size, channels, height, width), side = gradient.shape, weight.shape[-1]
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, channels)  # no copy where it lies channels-last
        sent = (weight.flatten(1).T.to(rows.dtype) @ rows.T).to(ctx.dtype).view(side, side, size, height, width)
        margin = side // 2
        padded = sent.new_zeros(size, height + 2 * margin, width + 2 * margin)
        for row in range(side):
            for column in range(side):
                padded[:, row : row + height, column : column + width] += sent[row, column]
        return padded[:, margin : margin + height, margin : margin + width][:, None], None, None


PLAIN = (nn.Conv2d, nn.BatchNorm2d, nn.BatchNorm1d, nn.Linear, nn.Identity)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is an unmodified layer of PyTorch, so that its parameters determine what it computes.

    It is not where it has a hook, a subclass's or its own `forward`, or parameters computed from others (pruning,
    parametrisations), or no running statistics.
    """
    return (
        type(layer) in PLAIN
        and "forward" not in vars(layer)
        and not any(getattr(layer, name) for name in HOOKS)
        and getattr(layer, "track_running_stats", True)
        and getattr(layer, "affine", True)
        and getattr(layer, "padding_mode", "zeros") == "zeros"
    )


def is_report_network(model: nn.Module, images: Tensor) -> TypeGuard[CNN]:
    """Whether a model is the lab report's network with unmodified layers, and the images have its size and dtype."""
    if type(model) is not CNN or images.shape[1:] != (1, 28, 28):
        return False
    if "forward" in vars(model) or any(getattr(model, name) for name in HOOKS):
        return False
    with torch.device("meta"):  # draws no random numbers
        usual = CNN(model.batchnorm, model.kernel_size, getattr(model.fc2, "out_features", 10))
    tensors = [images, *model.parameters()]
    return repr(model) == repr(usual) and all(map(is_plain, model.children())) and _are_floats(tensors)


def _are_floats(tensors: list[Tensor]) -> bool:
    return all(tensor.dtype == torch.float32 for tensor in tensors)


def folded(layer: nn.Conv2d | nn.Linear, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer with the normalisation behind it, as eval mode has it, made part of them."""
    assert layer.bias is not None
    if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
        fuse = fuse_conv_bn_weights if isinstance(layer, nn.Conv2d) else fuse_linear_bn_weights
        running = norm.running_mean, norm.running_var, norm.eps
        return fuse(layer.weight, layer.bias, *running, norm.weight, norm.bias)  # type: ignore[arg-type]
    return layer.weight, layer.bias


def _statistics(norm: nn.BatchNorm2d, images: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (32,) of the first convolution's channels, as `norm` would take them.

    In training those of this batch, which also move the running ones; otherwise the running ones.
    """
    running_mean, running_var, num_batches = norm.running_mean, norm.running_var, norm.num_batches_tracked
    assert isinstance(running_mean, Tensor)
    assert isinstance(running_var, Tensor)
    assert isinstance(num_batches, Tensor)
    if not norm.training:
        return running_mean, running_var
    margin = weight.shape[-1] // 2
    height, width = images.shape[-2:]
    padded = F.pad(images[:, 0], (margin, margin, margin, margin))
    patches = padded.unfold(1, height, 1).unfold(2, width, 1).reshape(len(images), -1, height * width)  # (B, 9, 784)
    num_patches = patches.shape[0] * patches.shape[2]
    centre = patches.mean((0, 2))  # (9,)
    patches = patches - centre[:, None]
    filters = weight.flatten(1)  # (32, 9)
    with torch.autocast(images.device.type, enabled=False):  # in float32, whatever the layers compute in
        covariance = torch.bmm(patches, patches.transpose(1, 2)).sum(0) / num_patches  # (9, 9)
        mean = filters @ centre + bias
        var = ((filters @ covariance) * filters).sum(1)
    with torch.no_grad():
        running_mean.lerp_(mean, MOMENTUM)
        running_var.lerp_(var * (num_patches / (num_patches - 1)), MOMENTUM)
        num_batches.add_(1)
    return mean, var


def not_finite(module: nn.Module) -> str | None:
    """The first parameter or running statistic that is infinite or not a number; None where there is none.

    Other buffers may be meant to be, such as the mask of an attention layer.
    """
    running = [one for one in module.named_buffers() if one[0].endswith(("running_mean", "running_var"))]
    return next((name for name, tensor in (*module.named_parameters(), *running) if not tensor.isfinite().all()), None)
