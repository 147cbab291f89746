"""A network of the size and build of ResNet-50, to be timed: it has random weights.

Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, table 1, with the
stride in the 3 × 3 convolution, as is common today.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""For each stage the inner width, the number of blocks and the stride."""
EXPANSION = 4


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3 and 1 × 1 convolutions, and a shortcut, with a projection where the shape changes."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * inner
        self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[batch, inputs, H, W]` to `[batch, 4 * inner, ⌈H / stride⌉, ⌈W / stride⌉]`."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return F.relu(out, inplace=True)


class ResNet50(nn.Module):
    """A stem, four stages of bottlenecks, global average pooling and a linear head; 25.6 M parameters.

    Args:
        classes: Number of logits.
        divide: Divides all widths; above 1 for quick checks only.
    """

    def __init__(self, classes: int = 1000, divide: int = 1) -> None:
        super().__init__()
        width = STAGES[0][0] // divide
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        blocks = []
        for inner, count, stride in STAGES:
            for i in range(count):
                blocks.append(Bottleneck(width, inner // divide, stride if i == 0 else 1))
                width = EXPANSION * inner // divide
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images `[batch, 3, H, W]` to logits `[batch, class]`."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        logits: Tensor = self.head(F.adaptive_avg_pool2d(self.blocks(x), 1).flatten(1))
        return logits
