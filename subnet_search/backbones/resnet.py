"""The residual networks for 32 × 32 images of He et al. 2016, with shortcuts that have no parameters.

Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2,
option A: where the width doubles, the shortcut takes every second pixel and pads the new channels with zeros. The
zeros are put half before and half behind the old channels, as in the checkpoints that circulate for CIFAR-10.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

DEPTHS = {"resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9}
"""Name → residual blocks a stage; the depth is 6 n + 2."""


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut without parameters.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out, at least `inputs`.
        stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (outputs - inputs) // 2
        self.padding = (0, 0, 0, 0, before, outputs - inputs - before)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[batch, inputs, H, W]` to `[batch, outputs, ⌈H / stride⌉, ⌈W / stride⌉]`."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if any(self.padding):
            x = F.pad(x, self.padding)
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """Three stages at full, half and quarter resolution, global average pooling, a linear head.

    Args:
        blocks: Residual blocks a stage.
        classes: Number of logits.
        width: Channels of the first stage; it doubles twice.
        inputs: Channels of the images.
    """

    def __init__(self, blocks: int, classes: int = 10, width: int = 16, inputs: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.linear = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps normalised images `[batch, inputs, H, W]` to logits `[batch, class]`."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.adaptive_avg_pool2d(out, 1).flatten(1)
        logits: Tensor = self.linear(out)
        return logits


def resnet20(classes: int = 10, width: int = 16, inputs: int = 3) -> CifarResNet:
    """Returns ResNet-20: 0.27 M parameters at the default width."""
    return CifarResNet(DEPTHS["resnet20"], classes, width, inputs)


def resnet32(classes: int = 10, width: int = 16, inputs: int = 3) -> CifarResNet:
    """Returns ResNet-32: 0.46 M parameters at the default width."""
    return CifarResNet(DEPTHS["resnet32"], classes, width, inputs)


def resnet44(classes: int = 10, width: int = 16, inputs: int = 3) -> CifarResNet:
    """Returns ResNet-44: 0.66 M parameters at the default width."""
    return CifarResNet(DEPTHS["resnet44"], classes, width, inputs)


def resnet56(classes: int = 10, width: int = 16, inputs: int = 3) -> CifarResNet:
    """Returns ResNet-56: 0.85 M parameters at the default width."""
    return CifarResNet(DEPTHS["resnet56"], classes, width, inputs)


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs, stride=1) for _ in range(blocks - 1)))
