import torch
from torch import nn

from subnet_search.ensemble.standing_norm import standing_statistics


def network() -> nn.Sequential:
    torch.manual_seed(0)
    norms = (nn.BatchNorm2d(4), nn.BatchNorm2d(4, momentum=None), nn.BatchNorm2d(4, track_running_stats=False))
    return nn.Sequential(nn.Conv2d(3, 4, 3), *norms)


def test_a_batch_is_normalised_by_itself_and_leaves_no_trace() -> None:
    layers, rows = network().train(), torch.randn(5, 3, 8, 8)
    layers(torch.randn(5, 3, 8, 8))
    before = {name: value.clone() for name, value in layers.state_dict().items()}
    with standing_statistics(layers):
        found = layers(rows)
    assert all(torch.equal(before[name], value) for name, value in layers.state_dict().items())
    assert torch.equal(found, layers(rows))
    found.sum().backward()
    assert not all(torch.equal(before[name], value) for name, value in layers.state_dict().items())


def test_a_network_in_eval_mode_computes_what_it_did() -> None:
    layers, rows = network(), torch.randn(5, 3, 8, 8)
    layers(rows)
    layers.eval()
    with standing_statistics(layers):
        assert torch.equal(layers(rows), layers(rows))
        found = layers(rows)
    assert torch.equal(found, layers(rows))
