"""Every rule against the operation itself, run on a tensor that holds the number of each channel."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.groups.channel_maps import Opaque, Operand, channel_map
from subnet_search.groups.trace import Op

CHANNELS = 6


def numbered(offset=0, channels=CHANNELS):
    """`[2, channels, 4, 4]`, each channel filled with its number; requires a gradient."""
    values = torch.arange(offset, offset + channels, dtype=torch.float64).view(1, -1, 1, 1)
    return values.expand(2, channels, 4, 4).clone().requires_grad_().clone()


def mapped(results, operands, axis=1):
    """The map of the operation that made `results`."""
    node = results[0].grad_fn
    inputs = tuple((i, 0) for i in range(len(operands)))
    shapes = tuple(tuple(result.shape) for result in results)
    op = Op(node.name().removesuffix("0").removesuffix("1").removesuffix("Backward"), inputs, shapes, node=node)
    return channel_map(op, [Operand(tuple(x.shape), axis) for x in operands])


def assert_moves_channels(results, operands, axis=1):
    """Each linked position of a result holds the number that its source position holds, and no position is missed."""
    out_axis, links = mapped(results, operands, axis)
    for number, result in enumerate(results):
        rows = result.detach().movedim(out_axis, 0).flatten(1)
        reached = set()
        for link in links:
            if link.result == number:
                source = operands[link.operand].detach().movedim(axis, 0).flatten(1)[:, 0]
                torch.testing.assert_close(rows[link.target].mean(1), source[link.source])
                reached.update(link.target.tolist())
        padded = {i for i in range(len(rows)) if bool((rows[i] == -1).all())}
        assert reached == set(range(len(rows))) - padded


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.flatten(1),
        lambda x: x.reshape(2, CHANNELS, 16),
        lambda x: x.mean((2, 3)),
        lambda x: x.mean((-1, -2), keepdim=True),
        lambda x: x.amax((2, 3)),
        lambda x: x.permute(0, 2, 3, 1),
        lambda x: x.transpose(1, -1),
        lambda x: x.unsqueeze(1),
        lambda x: x[:, 2:5],
        lambda x: x[:, ::2],
        lambda x: x[:, :, ::2, 1:],
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.adaptive_avg_pool2d(x, 2),
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
        lambda x: F.relu(x),
        lambda x: x.to(memory_format=torch.channels_last),
    ],
)
def test_one_operand(operation):
    x = numbered(1)
    assert_moves_channels([operation(x)], [x])


@given(left=st.integers(-2, 5), right=st.integers(-2, 5), width=st.integers(0, 2))
@settings(deadline=None, max_examples=30)
def test_padding_and_cropping(left, right, width):
    x = numbered()
    # The constant marks what is padding; across the image it would blur the numbers, so only channels are checked then.
    spatial = (0, 0, 0, 0) if width == 0 else (-1, 0, 0, -width)
    assert_moves_channels([F.pad(x, (*spatial, left, right), value=-1.0)], [x])


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
@settings(deadline=None, max_examples=30)
def test_split_and_concatenation_undo_each_other(sizes):
    x = numbered(channels=sum(sizes))
    parts = torch.split(x, sizes, dim=1)
    assert_moves_channels(list(parts), [x])
    fresh = [numbered(10 * i, size) for i, size in enumerate(sizes)]
    assert_moves_channels([torch.cat(fresh, dim=-3)], fresh)


def test_unflatten_gathers_features():
    features = torch.arange(3.0).repeat_interleave(4).expand(2, 12).clone().requires_grad_().clone()
    assert_moves_channels([features.view(2, 3, 2, 2)], [features])


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (lambda x: x.sum(1), "Sum over channels"),
        (lambda x: x.softmax(1), "Softmax over channels"),
        (lambda x: x.transpose(0, 1).reshape(4, 3, 4, 4), "reshape that mixes channels"),
        (lambda x: x.flip(1), "Flip .an operation whose effect"),
        (lambda x: x.mean(), "Mean over everything"),
    ],
)
def test_what_cannot_be_followed(operation, message):
    x = numbered()
    result = operation(x)
    axis = 0 if "reshape" in message else 1
    operand = x.transpose(0, 1) if axis == 0 else x
    with pytest.raises(Opaque, match=message):
        mapped([result], [operand], axis)
