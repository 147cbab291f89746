import torch
from torch import nn

from subnet_search.groups import ChannelGroup, Slice
from subnet_search.relevance import RelevanceConfig, score_relevance
from subnet_search.relevance.writers import writers


def test_magnitude_by_hand(tiny):
    got = score_relevance(tiny.ensemble, tiny.data, RelevanceConfig(criterion="magnitude"))
    conv1 = tiny.network.conv1.weight.detach()
    for name, rows in (("even", conv1[0::2]), ("odd", conv1[1::2]), ("fc", tiny.network.fc.weight.detach())):
        wanted = torch.tensor([float((row**2).sum()) ** 0.5 for row in rows])
        torch.testing.assert_close(got.scores[name], wanted * tiny.masks[name])
    assert got.samples == 0
    assert got.completeness is None


def test_writers_of_a_residual_sum_count_together():
    network = nn.ModuleDict({"a": nn.Conv2d(1, 2, 1), "b": nn.Linear(3, 2), "c": nn.Conv2d(2, 1, 1)})
    index = ((0,), (1,))
    sides = (Slice("a", "out", index), Slice("b", "out", ((1,), (0,))), Slice("c", "in", index))
    found = writers(network, ChannelGroup("a", 2, "stream", sides, ()))
    squares = sum(writer.squares(writer.weight.detach(), 2) for writer in found)
    a, b = network["a"].weight.detach().flatten(1), network["b"].weight.detach().flip(0)
    torch.testing.assert_close(squares, (a**2).sum(dim=1) + (b**2).sum(dim=1))


def test_transposed_convolutions_hold_their_outputs_on_the_second_axis():
    for layer, axis in ((nn.ConvTranspose2d(3, 2, 2), 1), (nn.ConvTranspose2d(2, 2, 2, groups=2), 0)):
        network = nn.ModuleDict({"up": layer})
        group = ChannelGroup("up", 2, "inner", (Slice("up", "out", ((0,), (1,))),), ())
        (writer,) = writers(network, group)
        wanted = torch.stack([layer.weight.detach().select(axis, c).square().sum() for c in range(2)])
        torch.testing.assert_close(writer.squares(layer.weight.detach(), 2), wanted)


def test_a_channel_with_several_rows_counts_them_all():
    network = nn.ModuleDict({"fc": nn.Linear(3, 4)})
    group = ChannelGroup("fc", 2, "inner", (Slice("fc", "out", ((0, 3), (1,))),), ())
    (writer,) = writers(network, group)
    each = network["fc"].weight.detach().square().sum(dim=1)
    torch.testing.assert_close(
        writer.squares(network["fc"].weight.detach(), 2), torch.stack([each[0] + each[3], each[1]])
    )


def test_random_is_seeded_uniform_and_differs_between_members(tiny):
    one, again, other = (
        score_relevance(tiny.ensemble, tiny.data, RelevanceConfig(criterion="random", seed=seed)).scores
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["fc"], other["fc"])
    assert not torch.equal(one["fc"][0, [1, 3]], one["fc"][1, [1, 3]])
    assert all(((scores >= 0) & (scores < 1)).all() for scores in one.values())
