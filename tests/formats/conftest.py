"""Small ensembles to write in other formats: of the digits network, with padded shortcuts, and for official layers."""

from collections.abc import Callable
from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from subnet_search.backbones import Backbone, Card, load_backbone
from subnet_search.backbones.resnet import CifarResNet
from subnet_search.data import load_data
from subnet_search.data.array_dataset import ArrayDataset
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble, recalibrate
from subnet_search.errors import SubnetSearchError
from subnet_search.formats.deployable import InputKind
from subnet_search.formats.optional import require
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.masks import MaskSet
from subnet_search.packed import PackConfig, PackedEnsemble, pack
from subnet_search.packed.packed_ensemble import Shape
from tests.formats.small_resnet import CARD, SmallResNet, enliven, masks_of

MEMBERS = 3
EXTRAS = MappingProxyType({"onnx": ("onnx", "onnxscript", "onnxruntime"), "edge": ("executorch.exir", "torchao")})


def ensemble_of(backbone: Backbone, unequal: bool = False) -> SubnetEnsemble:
    """Half of every group for each member, or, where they are to be unequal, from a quarter to three quarters."""
    graph = find_groups(backbone.model, torch.zeros(1, *backbone.card.input_shape))
    generator = torch.Generator().manual_seed(0)
    masks = {}
    for name, width in graph.widths.items():
        masks[name] = torch.zeros(MEMBERS, width, dtype=torch.bool)
        for k, share in enumerate((0.25, 0.5, 0.75) if unequal else (0.5, 0.5, 0.5)):
            masks[name][k, torch.randperm(width, generator=generator)[: max(1, int(share * width))]] = True
    return SubnetEnsemble(backbone.model, graph, MaskSet(masks, "random", 5), backbone.card)


@pytest.fixture(scope="session")
def digits_data() -> tuple[ArrayDataset, ArrayDataset]:
    """Training and test images of the digits."""
    card = load_backbone("digits").card
    return load_data("digits:train", card), load_data("digits:test", card)


@pytest.fixture(scope="session")
def digits(digits_data: tuple[ArrayDataset, ArrayDataset]) -> SubnetEnsemble:
    """Of the trained digits network, with statistics of each member's own; sure of some images and not of others."""
    ensemble = ensemble_of(load_backbone("digits"))
    recalibrate(ensemble, digits_data[0])
    return ensemble.eval()


@pytest.fixture(scope="session")
def padded() -> SubnetEnsemble:
    """Of a small residual network whose shortcuts are padded with channels of zeros, members of unequal widths."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CifarResNet(1, 4, width=8).eval()
    card = Card("padded", (3, 16, 16), ("cat", "dog", "ship", "Übung"), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    ensemble = ensemble_of(Backbone(network, card), unequal=True)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in ensemble.state_dict().items():  # fresh statistics would hide most mistakes
            if name.endswith(("running_mean", "running_var", "bn1.bias", "bn2.bias")):
                tensor.add_(0.5 * torch.rand(tensor.shape, generator=generator))
    return ensemble.eval()


@pytest.fixture(scope="session")
def packed() -> Callable[[SubnetEnsemble, Shape], PackedEnsemble]:
    """Packs an ensemble in a form of the given shape."""

    def make(ensemble: SubnetEnsemble, shape: Shape) -> PackedEnsemble:
        images = torch.rand(2, *ensemble.card.input_shape, generator=torch.Generator().manual_seed(0))
        return pack(ensemble, ensemble.card.prepare(images), PackConfig(shapes=(shape,), seconds=0.0))

    return make


@pytest.fixture(scope="session")
def noise() -> Callable[..., Tensor]:
    """Random raw images: `noise(card, n)`, uint8."""

    def make(card: Card, n: int, seed: int = 7) -> Tensor:
        return torch.randint(0, 256, (n, *card.input_shape), generator=torch.Generator().manual_seed(seed)).to(
            torch.uint8
        )

    return make


@pytest.fixture(scope="session")
def as_kind() -> Callable[[Card, Tensor, InputKind], Tensor]:
    """Turns raw uint8 images into another kind of input, worked out apart from the package's own code."""

    def make(card: Card, images: Tensor, kind: InputKind) -> Tensor:
        if kind == "uint8":
            return images
        scaled = images.float() / 255
        columns = (len(card.input_shape[1:])) * [1]
        mean, std = (torch.tensor(values).view(-1, *columns) for values in (card.mean, card.std))
        return scaled if kind == "float" else (scaled - mean) / std

    return make


@pytest.fixture(scope="session")
def needs() -> Callable[[str], None]:
    """Skips the test where the packages of an extra are missing: `needs("edge")`."""

    def check(extra: str) -> None:
        for module in EXTRAS[extra]:
            try:
                require(module, extra)
            except SubnetSearchError as error:
                pytest.skip(str(error))

    return check


@pytest.fixture(scope="session")
def small() -> tuple[nn.Module, GroupGraph]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = enliven(SmallResNet()).eval()
    return network, find_groups(network, torch.zeros(1, *CARD.input_shape))


@pytest.fixture(scope="session")
def make(small) -> Callable[..., SubnetEnsemble]:
    """Ensembles of the small network or of the digits backbone, their members as different as their settings allow."""
    backbone = load_backbone("digits")
    digits = backbone.model, find_groups(backbone.model, torch.zeros(1, *backbone.card.input_shape)), backbone.card

    def build(
        kind: str = "small", config: EnsembleConfig | None = None, seed: int = 0, **more: object
    ) -> SubnetEnsemble:
        network, graph, card = digits if kind == "digits" else (*small, CARD)
        ensemble = SubnetEnsemble(network, graph, masks_of(graph, seed=seed, **more), card, config)
        return enliven(ensemble, seed + 1) if kind == "small" else ensemble

    return build
