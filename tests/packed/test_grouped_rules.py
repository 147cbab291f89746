import torch
from hypothesis import given
from hypothesis import strategies as st

from subnet_search.packed.grouped_rules import map_members, place_channels, put_channels


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 3)), min_size=1, max_size=4), st.booleans())
def test_padding_members_side_by_side_equals_padding_each(before, lefts, last) -> None:
    left = [first for (first,) in lefts]
    after, members = before + 3, len(lefts)
    x = torch.randn(2, members * before, 3, 3, generator=torch.Generator().manual_seed(0))
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    naive = torch.zeros(2, members * after, 3, 3)
    for k in range(members):
        for channel in range(before):
            naive[:, k * after + left[k] + channel] = x[:, k * before + channel]
    assert put_channels(x, place_channels(before, after, left), members * after).equal(naive)


def test_an_operation_is_run_for_each_member() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(5, 3, 4, generator=generator), torch.randn(3, 2, 4, generator=generator)
    got = map_members(torch.ops.aten.linear.default, ["input", "weight", "bias"], [1, 0, None], x, weight, None)
    assert got.shape == (5, 3, 2)
    for k in range(3):
        assert torch.allclose(got[:, k], x[:, k] @ weight[k].T, atol=1e-6)
