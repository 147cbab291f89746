"""Ensembles to export: of a built-in network, and of one that only Python knows."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnet_search.backbones import Backbone, Card, load_backbone
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.groups import find_groups
from subnet_search.masks import MaskSet


class PlainNet(nn.Module):
    """A convolution without a norm and features that a flatten spreads, so that all kinds of sites are there."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 4, 3, stride=2, padding=1)
        self.fc = nn.Linear(4 * 16, 10)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        logits: Tensor = self.head(F.relu(self.fc(out.flatten(1))))
        return logits


def ensemble_of(backbone: Backbone, members: int = 3, config: EnsembleConfig | None = None) -> SubnetEnsemble:
    """Random masks, and weights and statistics that no initialisation gives."""
    graph = find_groups(backbone.model, torch.zeros(1, *backbone.card.input_shape))
    generator = torch.Generator().manual_seed(0)
    masks = {}
    for name, width in graph.widths.items():
        masks[name] = torch.rand(members, width, generator=generator) < 0.5
        masks[name][:, 0] = True
    found = MaskSet(masks, "random", 5, {"settings": {"phi": (1, 2)}, "overlap": 0.5})
    ensemble = SubnetEnsemble(backbone.model, graph, found, backbone.card, config)
    with torch.no_grad():
        for name, tensor in ensemble.state_dict().items():
            if tensor.is_floating_point():
                noise = 0.1 * torch.rand(tensor.shape, generator=generator)
                tensor.add_(noise if name.endswith("running_var") else noise - 0.05)
    return ensemble


@pytest.fixture(scope="session")
def resnet() -> SubnetEnsemble:
    """Of the built-in ResNet-20 at a quarter of its width; tests leave it as it is."""
    return ensemble_of(load_backbone("resnet20", "random", width=4))


@pytest.fixture(scope="session")
def plain_network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return PlainNet().eval()


@pytest.fixture(scope="session")
def plain(plain_network: nn.Module) -> SubnetEnsemble:
    """Of a network object, which no name stands for."""
    card = Card("my own", (3, 8, 8), ("cat", "dog", "Übung"), (0.1, 0.2, 0.3), (0.3, 0.4, 0.7))
    return ensemble_of(Backbone(plain_network, card))


@pytest.fixture(scope="session")
def another_plain() -> Callable[..., nn.Module]:
    return PlainNet


@pytest.fixture(scope="session")
def make_ensemble() -> Callable[..., SubnetEnsemble]:
    return ensemble_of


@pytest.fixture
def edit_manifest() -> Callable[[Path, Callable[[dict[str, Any]], None]], None]:
    """Changes a manifest and makes its own digest right again, as someone with bad intentions would."""

    def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
        path = folder / "manifest.json"
        content = json.loads(path.read_text())
        content.pop("sha256")
        change(content)
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        path.write_text(json.dumps({**content, "sha256": hashlib.sha256(canonical.encode()).hexdigest()}))

    return edit
