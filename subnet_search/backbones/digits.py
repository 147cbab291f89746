"""A small residual network for the 8 × 8 digits that scikit-learn brings along: the network of the default job."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ProjectionBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut that is a 1 × 1 convolution where the width changes.

    Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 3.3,
    option B.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[batch, inputs, H, W]` to `[batch, outputs, ⌈H / stride⌉, ⌈W / stride⌉]`."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class DigitsNet(nn.Module):
    """Two stages of two blocks at 8 × 8 and 4 × 4 pixels, global average pooling, a linear head.

    Args:
        classes: Number of logits.
        width: Channels of the first stage; the second has twice as many.
        inputs: Channels of the images.
    """

    def __init__(self, classes: int = 10, width: int = 16, inputs: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(ProjectionBlock(width, width, 1), ProjectionBlock(width, width, 1))
        self.layer2 = nn.Sequential(ProjectionBlock(width, 2 * width, 2), ProjectionBlock(2 * width, 2 * width, 1))
        self.linear = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps normalised images `[batch, inputs, H, W]` to logits `[batch, class]`."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer2(self.layer1(out))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits
