import pytest
import torch
import torch.nn.functional as F

from subnet_search.groups import ResizeCall
from subnet_search.groups.resizing import CallRecorder, ResizedCalls, plans_of

KEPT = {"a": torch.tensor([True, False, True]), "b": torch.tensor([False, True])}
PADDING = ResizeCall(0, 1, 2, 1, ((("b", 0), ("b", 1), ("a", 0), ("a", 1), ("a", 2), None),))
SPLIT = ResizeCall(0, 1, 0, 0, ((("a", 0), ("a", 1), ("a", 2)), (("b", 0), ("b", 1), None)))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: F.pad(x, (0, 0, 0, 0, 2, 1)),
        lambda x: F.pad(x, pad=(0, 0, 0, 0, 2, 1), mode="constant", value=0.0),
        lambda x: F.pad(input=x, pad=[0, 0, 0, 0, 2, 1]),
    ],
)
def test_padding_by_the_kept_channels(call):
    x = torch.ones(2, 2, 3, 3)
    with ResizedCalls(plans_of((PADDING,), KEPT)):
        result = call(x)
    assert result[0, :, 0, 0].tolist() == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.chunk(2, dim=1),
        lambda x: torch.chunk(x, 2, 1),
        lambda x: x.split(3, 1),
        lambda x: torch.split(x, [3, 3], dim=1),
        lambda x: torch.split(tensor=x, split_size_or_sections=3, dim=1),
        lambda x: torch.chunk(input=x, chunks=2, dim=1),
    ],
)
def test_splitting_by_the_kept_channels(call):
    x = torch.arange(4.0).view(1, 4)
    with ResizedCalls(plans_of((SPLIT,), KEPT)):
        first, second = call(x)
    assert first.tolist() == [[0.0, 1.0]]
    assert second.tolist() == [[2.0, 3.0]]


def test_only_the_planned_call_is_changed_and_whole_groups_count():
    x = torch.ones(1, 3, 2, 2)
    later = ResizeCall(1, 1, 2, 1, PADDING.labels)
    with ResizedCalls(plans_of((later,), {"a": KEPT["a"]})):
        assert F.pad(x, (1, 1)).shape == (1, 3, 2, 4)
        assert F.pad(x, (0, 0, 0, 0, 0, 0)).shape == (1, 6, 2, 2)
        assert F.relu(x).shape == x.shape


def test_recorder_counts_the_same_calls():
    x = torch.ones(1, 4, 2, 2, requires_grad=True)
    with CallRecorder() as recorder:
        F.relu(F.pad(x, (1, 1)))
        x.chunk(2, dim=1)
        F.pad(torch.ones(1), (1, 1))
    names = [None if node is None else node.name() for node in recorder.nodes]
    assert names == ["ConstantPadNdBackward0", "SplitBackward0", None]
