import io
import zipfile
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.formats import load_packed, save_packed
from subnet_search.groups import find_groups
from subnet_search.masks import MaskSet
from subnet_search.packed import PackConfig, pack


@pytest.mark.parametrize("shape", ["sliced", "grouped"])
def test_a_packed_ensemble_is_what_it_was(digits, tmp_path, shape) -> None:
    packed = pack(digits, torch.rand(2, *digits.card.input_shape), PackConfig((shape,), seconds=0.0))
    path = tmp_path / "packed.pt2"
    assert save_packed(packed, path) == path.stat().st_size
    loaded = load_packed(path)
    for batch in (1, 3, 8):
        images = torch.rand(batch, *packed.card.input_shape, generator=torch.Generator().manual_seed(batch))
        torch.testing.assert_close(loaded(images), packed(images), rtol=0, atol=1e-6)
    assert (loaded.form, loaded.members, loaded.macs(), loaded.card) == (
        packed.form,
        packed.members,
        packed.macs(),
        packed.card,
    )
    assert loaded.identity() == packed.identity()
    assert dict(loaded.report.timings_ms) == dict(packed.report.timings_ms)


def test_a_network_that_begins_with_a_norm_is_written_in_bfloat16(tmp_path) -> None:
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)).eval()
    graph = find_groups(network, torch.zeros(2, 2, 6, 6))
    masks = MaskSet({name: torch.arange(width) % 2 == torch.tensor([[0], [1]]) for name, width in graph.widths.items()}, "random")  # fmt: skip
    ensemble = SubnetEnsemble(network, graph, masks, Card("norm", (2, 6, 6), ("a", "b", "c")))
    packed = pack(ensemble, torch.rand(2, 2, 6, 6), PackConfig(("sliced",), precision="bf16", seconds=0.0))
    assert next(packed.parameters()).dtype == torch.float32
    save_packed(packed, tmp_path / "packed.pt2")
    images = torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(load_packed(tmp_path / "packed.pt2")(images), packed(images), rtol=0, atol=1e-6)


class Shuffled(nn.Module):
    """Channels in another order, as ShuffleNet has them: a copy, for which side by side there is no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 4, 3), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        x = x.unflatten(1, (2, 2)).transpose(1, 2).contiguous()
        return self.head(x.flatten(1))


def test_a_form_that_cannot_be_written_says_which_can(tmp_path) -> None:
    network = Shuffled().eval()
    graph = find_groups(network, torch.zeros(2, 2, 6, 6))
    masks = MaskSet({name: torch.arange(width) % 2 == torch.tensor([[0], [1]]) for name, width in graph.widths.items()}, "random")  # fmt: skip
    ensemble = SubnetEnsemble(network, graph, masks, Card("shuffled", (2, 6, 6), ("a", "b", "c")))
    images, path = torch.rand(2, 2, 6, 6, generator=torch.Generator().manual_seed(0)), tmp_path / "packed.pt2"
    with pytest.raises(SubnetSearchError, match=r"'grouped.*' cannot be written: .*shapes=\('sliced',\)"):
        save_packed(pack(ensemble, images, PackConfig(("grouped",), seconds=0.0)), path)
    assert not path.exists()
    save_packed(pack(ensemble, images, PackConfig(("sliced",), seconds=0.0)), path)
    torch.testing.assert_close(load_packed(path)(images), ensemble(images), rtol=0, atol=1e-5)


class Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


def test_no_pickle_is_executed(digits, tmp_path) -> None:
    path, witness = tmp_path / "packed.pt2", tmp_path / "executed"
    packed = pack(digits, torch.rand(1, *digits.card.input_shape), PackConfig(("sliced",), seconds=0.0))
    save_packed(packed, path)
    evil = io.BytesIO()
    torch.save(Evil(str(witness)), evil)
    with zipfile.ZipFile(path) as whole:
        content = {name: whole.read(name) for name in whole.namelist()}
    pickled = [name for name in content if name.endswith(".pt")]
    assert pickled  # where torch.export keeps what it would unpickle
    with zipfile.ZipFile(path, "w") as changed:
        for name, data in content.items():
            changed.writestr(name, evil.getvalue() if name in pickled else data)
    with pytest.raises(SubnetSearchError, match="cannot be read as a packed ensemble"):
        load_packed(path)
    assert not witness.exists()


def test_what_is_no_packed_ensemble_is_refused(digits, tmp_path) -> None:
    path = tmp_path / "packed.pt2"
    with pytest.raises(SubnetSearchError, match="found nothing"):
        load_packed(path)
    packed = pack(digits, torch.rand(1, *digits.card.input_shape), PackConfig(("sliced",), seconds=0.0))
    save_packed(packed, path)
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(
            SubnetSearchError, match=r"cannot be read as a packed ensemble \(\w+: \w.*\); it is damaged"
        ):
            load_packed(path)
