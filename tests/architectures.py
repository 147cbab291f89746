"""Small networks of every ordinary kind, with the groups that they have when worked out by hand, and masks for them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnet_search.groups import GroupGraph
from subnet_search.masks import MaskSet

MEMBERS = 3


@dataclass(frozen=True)
class Case:
    """A network, its input, and its groups: name → (width, kind, sites)."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    groups: dict[str, tuple[int, str, tuple[str, ...]]]

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.build().eval()

    def example(self) -> Tensor:
        return torch.randn(1, *self.shape, generator=torch.Generator().manual_seed(1))


class PaddedBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.grow = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.grow:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.grow, self.grow))
        return F.relu(out + x)


class PaddedResNet(nn.Module):
    """He et al. 2016, shortcut option A."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(PaddedBlock(4, 4, 1))
        self.layer2 = nn.Sequential(PaddedBlock(4, 8, 2), PaddedBlock(8, 8, 1))
        self.layer3 = nn.Sequential(PaddedBlock(8, 16, 2))
        self.linear = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.avg_pool2d(x, x.shape[3]).view(x.shape[0], -1))


class ProjectedBlock(nn.Module):
    """With one ReLU module used twice, as in torchvision."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


def projected_resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 1, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        ProjectedBlock(6, 6, 1), ProjectedBlock(6, 8, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


class PreActivationBlock(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(width), nn.Conv2d(width, hidden, 3, 1, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(hidden), nn.Conv2d(hidden, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))


def pre_activation() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 1, 1), PreActivationBlock(6, 4), PreActivationBlock(6, 5),
        nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, squeeze: bool = False) -> None:
        super().__init__()
        hidden = 2 * inputs
        self.expand, self.bn1 = nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        self.depth = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.squeeze = SqueezeExcitation(hidden, 3) if squeeze else nn.Identity()
        self.project, self.bn3 = nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.joined = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu6(self.bn1(self.expand(x)))
        out = self.bn3(self.project(self.squeeze(F.relu6(self.bn2(self.depth(out))))))
        return x + out if self.joined else out


class SqueezeExcitation(nn.Module):
    """With linear layers and a view, as in Hu et al. 2018."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        scale = F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1).view(batch, channels)))
        return x * torch.sigmoid(self.fc2(scale)).view(batch, channels, 1, 1)


def mobilenet(squeeze: bool = False) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU6(),
        InvertedResidual(4, 4, 1, squeeze), InvertedResidual(4, 6, 2),
        nn.Conv2d(6, 10, 1, bias=False), nn.BatchNorm2d(10), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(10, 4),
    )  # fmt: skip


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 5, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(5), nn.Conv2d(5, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))], 1)


def densenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1, bias=False), DenseLayer(4, 3), DenseLayer(7, 3),
        nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 5, 1, bias=False), nn.AvgPool2d(2), DenseLayer(5, 3),
        nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(True), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, 1, 1), nn.BatchNorm2d(6), nn.ReLU(True), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(24, 7), nn.ReLU(True), nn.Dropout(), nn.Linear(7, 4),
    )  # fmt: skip


class BiasedBlock(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, hidden, 3, 1, 1), nn.Conv2d(hidden, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.gelu(self.conv1(x)))


def unnormalised() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), BiasedBlock(4, 6), nn.Conv2d(4, 4, 3, 1, 1, groups=4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4),
    )  # fmt: skip


class Gated(nn.Module):
    """The two halves of a convolution multiply each other, and a split into unequal parts is joined again crosswise."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, 1, 1)
        self.conv2 = nn.Conv2d(6, 7, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(7)
        self.conv3 = nn.Conv2d(3, 3, 3, 1, 1)
        self.head = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.conv1(x).chunk(2, dim=1)
        x = self.bn2(self.conv2(left * torch.sigmoid(right)))
        wide, narrow = torch.split(x, [4, 3], dim=1)
        x = torch.cat([self.conv3(narrow), F.relu(wide)], dim=-3)
        return self.head(x.mean((-2, -1)))


def parametric() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1), nn.PReLU(4), nn.ConvTranspose2d(4, 5, 2, 2), nn.PReLU(), nn.BatchNorm2d(5),
        nn.ConvTranspose2d(5, 5, 2, 2, groups=5),
        nn.Conv2d(5, 10, 3, 1, 1, groups=5), nn.ReLU(), nn.Conv2d(10, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 5), nn.ELU(), nn.Linear(5, 3)
    )


CASES = [
    Case(
        "padded",
        PaddedResNet,
        (3, 8, 8),
        {
            "conv1": (
                4,
                "stream",
                ("bn1", "layer1.0.bn2", "layer2.0.bn2", "layer2.1.bn2", "layer3.0.bn2"),
            ),
            "layer1.0.conv1": (4, "inner", ("layer1.0.bn1",)),
            "layer2.0.conv1": (8, "inner", ("layer2.0.bn1",)),
            "layer2.0.conv2": (4, "stream", ("layer2.0.bn2", "layer2.1.bn2", "layer3.0.bn2")),
            "layer2.1.conv1": (8, "inner", ("layer2.1.bn1",)),
            "layer3.0.conv1": (16, "inner", ("layer3.0.bn1",)),
            "layer3.0.conv2": (8, "inner", ("layer3.0.bn2",)),
        },
    ),
    Case(
        "projected",
        projected_resnet,
        (3, 12, 12),
        {
            "0": (6, "stream", ("1", "4.bn2")),
            "4.conv1": (6, "inner", ("4.bn1",)),
            "5.conv1": (8, "inner", ("5.bn1",)),
            "5.conv2": (8, "stream", ("5.bn2", "5.downsample.1")),
        },
    ),
    Case(
        "pre-activation",
        pre_activation,
        (3, 8, 8),
        {
            "0": (6, "stream", ("1.bn1", "2.bn1", "3")),
            "1.conv1": (4, "inner", ("1.bn2",)),
            "2.conv1": (5, "inner", ("2.bn2",)),
        },
    ),
    Case(
        "mobilenet",
        mobilenet,
        (3, 8, 8),
        {
            "0": (4, "stream", ("1", "3.bn3")),
            "3.expand": (8, "inner", ("3.bn1", "3.bn2")),
            "4.expand": (8, "inner", ("4.bn1", "4.bn2")),
            "4.project": (6, "inner", ("4.bn3",)),
            "5": (10, "inner", ("6",)),
        },
    ),
    Case(
        "squeeze-excitation",
        lambda: mobilenet(squeeze=True),
        (3, 8, 8),
        {
            "0": (4, "stream", ("1", "3.bn3")),
            "3.expand": (8, "inner", ("3.bn1", "3.bn2")),
            "3.squeeze.fc1": (3, "inner", ("3.squeeze.fc1",)),
            "4.expand": (8, "inner", ("4.bn1", "4.bn2")),
            "4.project": (6, "inner", ("4.bn3",)),
            "5": (10, "inner", ("6",)),
        },
    ),
    Case(
        "densenet",
        densenet,
        (3, 8, 8),
        {
            "0": (4, "inner", ("1.bn1", "2.bn1", "3")),
            "1.conv1": (5, "inner", ("1.bn2",)),
            "1.conv2": (3, "inner", ("2.bn1", "3")),
            "2.conv1": (5, "inner", ("2.bn2",)),
            "2.conv2": (3, "inner", ("3",)),
            "5": (5, "inner", ("7.bn1", "8")),
            "7.conv1": (5, "inner", ("7.bn2",)),
            "7.conv2": (3, "inner", ("8",)),
        },
    ),
    Case(
        "vgg",
        vgg,
        (3, 8, 8),
        {"0": (4, "inner", ("1",)), "4": (6, "inner", ("5",)), "9": (7, "inner", ("9",))},
    ),
    Case(
        "unnormalised",
        unnormalised,
        (3, 8, 8),
        {"0": (4, "stream", ("0", "3")), "2.conv1": (6, "inner", ("2.conv1",))},
    ),
    Case(
        "gated",
        Gated,
        (3, 8, 8),
        {
            "conv1": (6, "inner", ("conv1",)),
            "conv2": (4, "inner", ("bn2",)),
            "conv2:2": (3, "inner", ("bn2",)),
            "conv3": (3, "inner", ("conv3",)),
        },
    ),
    Case(
        "parametric",
        parametric,
        (3, 6, 6),
        {
            "0": (4, "inner", ("0",)),
            "2": (5, "inner", ("4", "6")),
        },
    ),
    Case("perceptron", perceptron, (6,), {"0": (8, "inner", ("1",)), "3": (5, "inner", ("3",))}),
]
BY_NAME = {case.name: case for case in CASES}


def enlivened(model: nn.Module) -> nn.Module:
    """With statistics, affine parameters and biases that no initialisation gives."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + (0.5 if "var" in name else -0.3))
    return model.eval()


def random_masks(graph: GroupGraph) -> MaskSet:
    """Of different widths for each member, from one channel to all."""
    generator = torch.Generator().manual_seed(11)
    masks = {}
    for name, width in graph.widths.items():
        kept = torch.randint(1, width + 1, (MEMBERS,), generator=generator)
        order = torch.rand(MEMBERS, width, generator=generator).argsort(dim=1).argsort(dim=1)
        masks[name] = order < kept[:, None]
    return MaskSet(masks, "random")


def half_masks(graph: GroupGraph, members: int = MEMBERS) -> MaskSet:
    """Of equal widths, drawn for each member."""
    generator = torch.Generator().manual_seed(5)
    masks = {}
    for name, width in graph.widths.items():
        order = torch.rand(members, width, generator=generator).argsort(dim=1)
        masks[name] = order < max(1, width // 2)
    return MaskSet(masks, "random")
