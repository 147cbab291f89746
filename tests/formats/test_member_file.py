import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from subnet_search.errors import SubnetSearchError
from subnet_search.formats import save_member
from subnet_search.packed import member_network


def test_a_member_has_the_names_of_the_backbone_and_its_own_widths(digits, tmp_path) -> None:
    path = tmp_path / "member.safetensors"
    assert save_member(digits, 1, path) == path.stat().st_size
    network = member_network(digits, 1)
    state = load_file(path)
    assert set(state) == set(network.state_dict())
    for name, value in network.state_dict().items():
        assert torch.equal(state[name], value)
    with safe_open(path, "pt") as file:
        described = file.metadata()
    kept = json.loads(described["kept"])
    masks = digits.masks.masks
    assert kept == {name: mask[1].nonzero().flatten().tolist() for name, mask in masks.items()}
    assert described["member"] == "1"


def test_a_member_that_is_not_there_is_refused(digits, tmp_path) -> None:
    with pytest.raises(SubnetSearchError, match="got member 9"):
        save_member(digits, 9, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())
