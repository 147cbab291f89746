"""Networks with parts that cannot be cut: these are left whole and said so, never cut wrongly."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnet_search.errors import SubnetSearchError
from subnet_search.groups import channel_maps, find_groups
from subnet_search.groups.channel_maps import Link
from subnet_search.groups.verify import Verifier


class Shuffle(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(x.shape)


class HandShuffle(nn.Module):
    """By indexing: autograd knows no more than that it is an index."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, torch.arange(x.shape[1]).flip(0)]


class LastNorm(nn.Module):
    """Layer norm over the channels, as in ConvNeXt."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class RawConvolution(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width, 3, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=1)


class Scale(nn.Module):
    """A parameter for each channel, outside of any layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class ConstantScale(nn.Module):
    """The same as a buffer, of which autograd tells nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("gamma", torch.arange(1.0, width + 1).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Offset(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


class ChannelMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.mean(1, keepdim=True))


class FixedView(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 6, 8, 8)


def between(part: nn.Module, *, norm: bool = True) -> nn.Module:
    """A part behind a first convolution, before another part that can be searched."""
    middle = nn.BatchNorm2d(6) if norm else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 1, 1), middle, part, nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    ).eval()  # fmt: skip


PARTS = {
    "shuffle": (Shuffle(), "reshape that mixes channels with other axes"),
    "index": (HandShuffle(), "Index .an operation whose effect on channels is not known"),
    "layer-norm": (LastNorm(6), "LayerNorm '2.norm' works on several channels at once"),
    "group-norm": (nn.GroupNorm(2, 6), "GroupNorm '2' works on several channels at once"),
    "grouped": (nn.Conv2d(6, 6, 3, 1, 1, groups=2), "Conv2d '2' is a grouped convolution"),
    "raw": (RawConvolution(6), "Convolution .an operation whose effect"),
    "scale": (Scale(6), "Mul with a tensor that is no layer's output"),
    "constant": (ConstantScale(6), "does not run without some of its channels"),
    "offset": (Offset(), "cutting it changes the logits by"),
    "sigmoid": (nn.Sigmoid(), "Conv2d '3' reads a cut channel as something else than zero"),
    "channel-mean": (ChannelMean(), "Mean over channels"),
    "softmax": (nn.Softmax(1), "Softmax over channels"),
    "view": (FixedView(), "does not run without some of its channels|changes the shape of the logits"),
    "pixel-shuffle": (nn.Sequential(nn.PixelUnshuffle(2), nn.PixelShuffle(2)), "not known|reshape that mixes"),
}


@pytest.mark.parametrize("name", PARTS)
def test_part_is_left_whole_with_its_reason(name):
    part, reason = PARTS[name]
    graph = find_groups(between(part), torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert graph.widths == {"3": 5}
    whole = {entry.name: entry for entry in graph.left_whole}
    assert whole["0"].width == 6
    with pytest.raises(ValueError, match=reason):
        raise ValueError(whole["0"].reason)


class ConvNextBlock(nn.Module):
    """Liu et al. 2022: the stream is normalised over its channels, the hidden layer is not."""

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.norm = nn.Conv2d(6, 6, 3, 1, 1, groups=6), nn.LayerNorm(6)
        self.up, self.down = nn.Linear(6, 12), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(self.depth(x).permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)


def test_hidden_layer_of_a_normalised_stream_is_searchable():
    graph = find_groups(between(ConvNextBlock(), norm=False), torch.zeros(1, 3, 8, 8))
    assert graph.widths == {"2.up": 12, "3": 5}
    assert graph["2.up"].sites[0].module == "2.up"
    assert {w.reason for w in graph.left_whole} == {"LayerNorm '2.norm' works on several channels at once"}


class SinglePrecision(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float()


class Halves(nn.Module):
    """Divides the channels by their number: right only for masks that leave as many of each half."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        return self.low(x[:, :half]) + self.high(x[:, half:])


@pytest.mark.parametrize("seed", range(5))
def test_halves_by_number_are_left_whole_whatever_masks_are_drawn(seed, monkeypatch):
    monkeypatch.setattr(Verifier.__init__, "__defaults__", (seed,))
    graph = find_groups(between(Halves()), torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert graph.widths == {"2.low": 6, "3": 5}
    assert sum(whole.width for whole in graph.left_whole if whole.name.startswith("0")) == 6


class EdgePadding(nn.Module):
    """Padding with pixels of the image, around another one with zeros."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(F.pad(x, (1, 1, 1, 1), mode=self.kind), (1, 1, 1, 1))


@pytest.mark.parametrize("kind", ["reflect", "replicate"])
def test_padding_with_pixels_keeps_channels_searchable(kind):
    graph = find_groups(between(EdgePadding(kind)), torch.zeros(1, 3, 8, 8))
    assert graph.widths == {"0": 6, "3": 5}
    assert graph.resizes == ()


def test_network_that_insists_on_float32_is_verified_in_it():
    assert find_groups(between(SinglePrecision()), torch.zeros(1, 3, 8, 8)).widths == {"0": 6, "3": 5}


def test_network_of_such_parts_only_is_refused():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )
    with pytest.raises(SubnetSearchError, match=r"0 \(6 channels\): GroupNorm '1' works on several channels at once"):
        find_groups(model, torch.zeros(1, 3, 8, 8))


def test_single_channels_and_dead_channels_are_left_whole():
    model = between(nn.Sequential(nn.Conv2d(6, 1, 1), nn.ReLU(), nn.Conv2d(1, 6, 1)))
    graph = find_groups(model, torch.zeros(1, 3, 8, 8))
    assert [(w.name, w.reason) for w in graph.left_whole] == [("2.0", "all of it can only be cut at once")]
    model = between(nn.Sequential(nn.Conv2d(6, 4, 1), nn.Threshold(1e9, 0.0), nn.Conv2d(4, 6, 1)))
    whole = {w.name: w.reason for w in find_groups(model, torch.zeros(1, 3, 8, 8)).left_whole}
    assert "2.0" in whole


def element_wise(op, operands):
    """The map that torch-pruning 1.6.1 has for `F.pad`: channel 0 stays channel 0."""
    axis, (link,) = channel_maps._pad(op, operands)
    return axis, [Link(0, 0, link.source, link.source)]


def mirrored(op, operands):
    """Right in all its sizes, wrong in the order of channels."""
    axis, (link,) = channel_maps._pad(op, operands)
    return axis, [Link(0, 0, link.source, link.target[::-1].copy())]


@pytest.mark.parametrize(
    ("wrong", "refused", "reason"),
    [
        (element_wise, {"conv1", "layer2.0.conv2", "layer3.0.conv2"}, "does not run without"),
        (mirrored, {"conv1", "layer2.0.conv2"}, "cutting it changes the logits by"),
    ],
)
def test_wrong_index_map_is_caught_by_the_numbers(padded, monkeypatch, wrong, refused, reason):
    monkeypatch.setitem(channel_maps.RULES, "ConstantPadNd", wrong)
    graph = find_groups(padded.model(), padded.example())
    whole = {entry.name: entry.reason for entry in graph.left_whole}
    assert set(whole) == refused
    assert reason in whole["conv1"]
    assert set(graph.widths) == set(padded.groups) - refused
