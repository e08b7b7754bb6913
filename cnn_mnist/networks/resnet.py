"""A small residual network, from the blocks of torchvision."""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from cnn_mnist.option_types import Count


class ResNet(nn.Module):
    """Images float32 (B, 1, 28, 28) in [0, 1] to logits (B, num_classes); always with batch normalisation.

    Three residual blocks of two 3x3 convolutions; the second and the third halve the size and double the channels.

    Args:
        width: Channels of the first block.
        num_classes: Number of classes.

    Source: He, Zhang, Ren and Sun 2016.
    """

    def __init__(self, width: Count = 16, num_classes: Count = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.block1 = BasicBlock(width, width)
        self.block2 = BasicBlock(width, 2 * width, stride=2, downsample=shortcut(width, 2 * width))
        self.block3 = BasicBlock(2 * width, 4 * width, stride=2, downsample=shortcut(2 * width, 4 * width))
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) for images (B, 1, 28, 28)."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.block3(self.block2(self.block1(x)))  # (B, 4 * width, 7, 7)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def shortcut(num_in: int, num_out: int) -> nn.Sequential:
    """The way past a block that halves the size and changes the number of channels."""
    return nn.Sequential(nn.Conv2d(num_in, num_out, 1, stride=2, bias=False), nn.BatchNorm2d(num_out))
