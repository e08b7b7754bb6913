"""LeNet-5, the network for which MNIST was made."""

from collections import OrderedDict

from torch import nn

from cnn_mnist.option_types import Count


class LeNet5(nn.Sequential):
    """Images float32 (B, 1, 28, 28) in [0, 1] to logits (B, num_classes); 61,706 parameters with ten classes.

    The means of 2x2 pixels have no weights of their own, the second convolution sees all six maps, and the last layer
    is linear: the three points in which most of today's versions differ from the paper's.

    Args:
        num_classes: Number of classes.

    Source: LeCun, Bottou, Bengio and Haffner 1998.
    """

    def __init__(self, num_classes: Count = 10) -> None:
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(1, 6, 5, padding=2),  # (B, 6, 28, 28)
                tanh1=nn.Tanh(),
                pool1=nn.AvgPool2d(2),  # (B, 6, 14, 14)
                conv2=nn.Conv2d(6, 16, 5),  # (B, 16, 10, 10)
                tanh2=nn.Tanh(),
                pool2=nn.AvgPool2d(2),  # (B, 16, 5, 5)
                flatten=nn.Flatten(),
                fc1=nn.Linear(16 * 5 * 5, 120),
                tanh3=nn.Tanh(),
                fc2=nn.Linear(120, 84),
                tanh4=nn.Tanh(),
                fc3=nn.Linear(84, num_classes),
            )
        )
