import io

import pytest
import torch
from torch import nn

from subnet_search.errors import SubnetSearchError
from subnet_search.groups import find_groups, macs, slice_network
from subnet_search.groups.cost import layer_macs


def randomise(model, generator):
    """Statistics, affine parameters and biases that are not what a fresh network has."""
    for module in model.modules():
        for name in ("running_mean", "bias"):
            if isinstance(getattr(module, name, None), torch.Tensor):
                getattr(module, name).data.normal_(0, 0.3, generator=generator)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(-1.5, 1.5, generator=generator)
    return model


def random_masks(graph, generator):
    kept = {}
    for name, width in graph.widths.items():
        kept[name] = torch.rand(width, generator=generator) < 0.6
        kept[name][torch.randint(width, (1,), generator=generator)] = True
    return kept


def masked_logits(model, graph, kept, x):
    """The naive twin: zeros written into the sites' outputs one channel at a time."""
    layers = dict(model.named_modules())
    hooks = []
    for group in graph.groups:
        for site in group.sites:

            def zero(_module, _inputs, output, site=site, name=group.name):
                output = output.clone()
                for channel, places in enumerate(site.index):
                    for place in () if kept[name][channel] else places:
                        output[:, place] = 0
                return output

            hooks.append(layers[site.module].register_forward_hook(zero))
    logits = model(x)
    for hook in hooks:
        hook.remove()
    return logits


@pytest.mark.parametrize("seed", range(3))
def test_masked_equals_sliced_on_fresh_masks(case, seed):
    generator = torch.Generator().manual_seed(seed)
    model = randomise(case.model(), generator)
    graph = find_groups(model, case.example())
    kept = random_masks(graph, generator)
    x = torch.randn(3, *case.shape, generator=generator)
    with torch.no_grad():
        expected = masked_logits(model, graph, kept, x)
        sliced = slice_network(model, graph, kept)(x)
        whole = model(x)
    torch.testing.assert_close(sliced, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert not torch.allclose(expected, whole, rtol=1e-3)


def test_a_single_channel_of_each_group_is_enough(case):
    generator = torch.Generator().manual_seed(4)
    model = randomise(case.model(), generator)
    graph = find_groups(model, case.example())
    kept = {name: torch.arange(width) == width // 2 for name, width in graph.widths.items()}
    x = torch.randn(3, *case.shape, generator=generator)
    with torch.no_grad():
        expected, sliced = masked_logits(model, graph, kept, x), slice_network(model, graph, kept)(x)
    torch.testing.assert_close(sliced, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def naive_macs(model, x):
    """Multiplications and additions counted weight by weight: each is used once for every place of the output."""
    counted = []

    def count(module, inputs, output):
        if isinstance(module, nn.Linear):
            counted.append(module.weight.numel() * output[0].numel() // module.out_features)
        elif isinstance(module, nn.ConvTranspose2d):
            counted.append(module.weight.numel() * inputs[0][0, 0].numel())
        else:
            counted.append(module.weight.numel() * output[0, 0].numel())

    hooks = [m.register_forward_hook(count) for m in model.modules() if hasattr(m, "stride") and hasattr(m, "weight")]
    hooks += [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return sum(counted)


def test_macs_equal_those_counted_on_the_sliced_network(case):
    model, generator = case.model(), torch.Generator().manual_seed(5)
    graph = find_groups(model, case.example())
    x = case.example()
    assert graph.dense_macs == macs(graph, {}) == naive_macs(model, x)
    for _ in range(3):
        kept = random_masks(graph, generator)
        widths = {name: int(mask.sum()) for name, mask in kept.items()}
        assert macs(graph, widths) == naive_macs(slice_network(model, graph, kept), x)
        assert sum(layer_macs(graph, widths).values()) == macs(graph, widths)
    assert layer_macs(graph, {}) == {node[1]: n for node, n in graph.graph.nodes(data="macs") if node[0] == "layer"}


def test_macs_refuse_unknown_groups_and_widths(padded):
    graph = find_groups(padded.model(), padded.example())
    with pytest.raises(SubnetSearchError, match="widths name group 'conv9'"):
        macs(graph, {"conv9": 1})
    with pytest.raises(SubnetSearchError, match="width of group 'conv1' is 5, expected 0 to 4"):
        macs(graph, {"conv1": 5})


def test_slicing_keeps_names_mode_and_model(padded):
    model = padded.model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = find_groups(model, padded.example())
    model.conv1.weight.requires_grad_(False)
    sliced = slice_network(model, graph, {"conv1": torch.tensor([True, False, True, False])})
    assert not sliced.training
    assert sliced.network.conv1.weight.shape == (2, 3, 3, 3)
    assert not sliced.network.conv1.weight.requires_grad
    assert sliced.network.layer3[0].bn2.num_features == 14
    assert sliced.network.linear.in_features == 14
    assert sliced.network.layer2[0].bn1.weight.shape == (8,)
    assert set(sliced.network.state_dict()) == set(before)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    model.train()
    assert slice_network(model, graph, {}).training


def test_slicing_everything_in_is_the_network_itself(case):
    model, x = case.model(), case.example()
    graph = find_groups(model, x)
    full = {name: torch.ones(width, dtype=torch.bool) for name, width in graph.widths.items()}
    with torch.no_grad():
        assert torch.equal(slice_network(model, graph, full)(x), model(x))


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"conv9": torch.ones(4, dtype=torch.bool)}, "group 'conv9'; the network's groups are"),
        ({"conv1": torch.ones(4)}, r"got torch.float32 of shape \(4,\), expected torch.bool"),
        ({"conv1": torch.ones(5, dtype=torch.bool)}, r"of shape \(5,\), expected torch.bool of shape \(4,\)"),
        ({"conv1": torch.zeros(4, dtype=torch.bool)}, "keeps no channel, expected at least one"),
    ],
)
def test_slicing_refuses_wrong_masks(padded, kept, message):
    graph = find_groups(padded.model(), padded.example())
    with pytest.raises(SubnetSearchError, match=message):
        slice_network(padded.model(), graph, kept)


def test_sliced_network_is_exported_saved_and_differentiated(padded):
    model = padded.model()
    graph = find_groups(model, padded.example())
    sliced = slice_network(model, graph, random_masks(graph, torch.Generator().manual_seed(2)))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    expected = sliced(x)
    torch.testing.assert_close(torch.export.export(sliced, (x,)).module()(x), expected)
    torch.testing.assert_close(torch.compile(sliced, backend="eager")(x), expected)
    buffer = io.BytesIO()
    torch.save(sliced.state_dict(), buffer)
    expected.sum().backward()
    assert sliced.network.conv1.weight.grad is not None
