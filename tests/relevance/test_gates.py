import pytest
import torch
from torch import nn

from subnet_search.errors import SubnetSearchError
from subnet_search.relevance import gated


def random_gates(tiny, rows, names=("even", "odd", "conv2", "fc")):
    generator = torch.Generator().manual_seed(5)
    masks = tiny.masks
    return {n: torch.rand(2 * rows, masks[n].shape[1], generator=generator, dtype=torch.float64) for n in names}


def hooks(ensemble: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in ensemble.modules())


@pytest.mark.parametrize("names", [("even",), ("odd",), ("conv2",), ("fc",), ("even", "odd"), ("even", "odd", "conv2", "fc")])  # fmt: skip
def test_gates_equal_the_network_written_out(tiny64, names):
    x, _ = tiny64.rows()
    gates = random_gates(tiny64, len(x), names)
    with torch.no_grad():
        with gated(tiny64.ensemble, gates):
            got = tiny64.ensemble(x)
        for member in range(2):
            own = {n: g.unflatten(0, (2, -1))[member] * tiny64.masks[n][member] for n, g in gates.items()}
            torch.testing.assert_close(got[member], tiny64.logits(member, x, own))


def test_open_gates_change_nothing(tiny64):
    x, _ = tiny64.rows()
    ones = {name: torch.ones_like(gate) for name, gate in random_gates(tiny64, len(x)).items()}
    before = tiny64.ensemble(x)
    with gated(tiny64.ensemble, ones):
        assert torch.equal(tiny64.ensemble(x), before)


def test_a_closed_gate_equals_a_mask(tiny64):
    x, _ = tiny64.rows()
    gates = {"even": torch.tensor([1.0, 1.0, 0.0]).repeat(2 * len(x), 1)}
    with gated(tiny64.ensemble, gates):
        got = tiny64.ensemble(x)
    masks = tiny64.ensemble.masks
    cut = {**masks.masks, "even": masks.masks["even"] & torch.tensor([True, True, False])}
    tiny64.ensemble.set_masks(type(masks)(cut, "hand"))
    torch.testing.assert_close(got, tiny64.ensemble(x))


def test_gates_of_a_linear_layer_go_to_its_last_axis(tiny64):
    layer = tiny64.ensemble.network.fc
    tokens = torch.randn(2, 7, 4, dtype=torch.float64)
    gate = torch.rand(2, 4, dtype=torch.float64)
    plain = layer(tokens)
    with gated(tiny64.ensemble, {"fc": gate}):
        torch.testing.assert_close(layer(tokens), plain * gate[:, None, :])


def test_gates_keep_the_precision_of_the_network(tiny):
    x, _ = tiny.rows()
    with gated(tiny.ensemble, random_gates(tiny, len(x))), torch.autocast("cpu", torch.bfloat16):
        assert tiny.ensemble(x).dtype == torch.bfloat16


def test_hooks_are_gone_after_the_context(tiny64):
    x, _ = tiny64.rows()
    with gated(tiny64.ensemble, random_gates(tiny64, len(x))):
        assert hooks(tiny64.ensemble) == 4  # bn1 has one for both of its groups, the network one that checks
    assert hooks(tiny64.ensemble) == 0


def test_hooks_are_gone_after_an_exception(tiny64):
    x, _ = tiny64.rows()
    with pytest.raises(RuntimeError, match="stop"), gated(tiny64.ensemble, random_gates(tiny64, len(x))):
        raise RuntimeError("stop")
    assert hooks(tiny64.ensemble) == 0
    gates = random_gates(tiny64, 2)
    with pytest.raises(SubnetSearchError, match="'even' have 4 rows, expected 12"), gated(tiny64.ensemble, gates):
        tiny64.ensemble(x)
    assert hooks(tiny64.ensemble) == 0


def test_all_rows_that_a_layer_writes_for_an_image_have_its_gate(tiny64):
    layer = tiny64.ensemble.network.fc
    frames = torch.randn(2 * 3, 4, dtype=torch.float64)  # three for each row of the input, folded into the batch
    gate = torch.rand(2, 4, dtype=torch.float64)
    plain = layer(frames)
    with gated(tiny64.ensemble, {"fc": gate}):
        torch.testing.assert_close(layer(frames), plain * gate[[0, 0, 0, 1, 1, 1]])
