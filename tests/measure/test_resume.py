"""Passes that start in the middle."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from subnet_search.measure.resume import Snapshot, outline, resumed


class Winding(nn.Module):
    """In-place operations, a result in parts, numbers taken from tensors, and a value that is read much later."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(2, 4, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        early = self.first(x)
        out = F.relu(self.second(early), inplace=True)
        out += early
        left, right = out.chunk(2, dim=1)
        width = int(out.shape[1])
        out = self.third(left * right) / width
        out = torch.cat([out, early], dim=1)
        early.mul_(0.0)  # what was kept must not change with it
        logits: Tensor = self.head(out.mean(dim=(2, 3)))
        return logits


class Counter(TorchFunctionMode):
    """Counts the convolutions that are really run."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.convolutions += func is F.conv2d
        return func(*args, **(kwargs or {}))


@pytest.fixture
def winding() -> Winding:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Winding().eval()


def images(count: int) -> Tensor:
    return torch.randn(count, 2, 5, 5, generator=torch.Generator().manual_seed(count))


def taken(network: nn.Module, x: Tensor, number: int) -> Snapshot:
    _, snapshot = resumed(network, x, outline(network, images(2)), None, number)
    assert snapshot is not None
    return snapshot


@torch.no_grad()
def test_from_every_operation_the_answer_is_that_of_a_whole_pass(winding) -> None:
    x = images(5)
    whole = winding(x)
    plan = outline(winding, images(2))
    assert len(plan.results) == len(plan.last_reader) > 10
    for number in range(1, len(plan.results)):
        snapshot = taken(winding, x, number)
        for _ in range(2):  # the first use must leave it as it was
            answer, none = resumed(winding, x, plan, snapshot)
            assert torch.equal(answer, whole), number
            assert none is None


@torch.no_grad()
def test_what_comes_before_is_not_run(winding) -> None:
    plan = outline(winding, images(2))
    assert list(plan.starts)[:3] == ["", "first", "second"]
    for module, left in (("first", 3), ("second", 2), ("third", 1), ("head", 0)):
        snapshot = taken(winding, images(4), plan.starts[module]) if module != "first" else None
        with Counter() as counter:
            resumed(winding, images(4), plan, snapshot)
        assert counter.convolutions == left


@torch.no_grad()
def test_a_snapshot_follows_on_another(winding) -> None:
    plan, x = outline(winding, images(2)), images(3)
    early = taken(winding, x, plan.starts["second"])
    _, late = resumed(winding, x, plan, early, plan.starts["third"])
    assert late is not None
    direct = taken(winding, x, plan.starts["third"])
    assert late.results.keys() == direct.results.keys()
    assert late.bytes == direct.bytes > 0
    assert torch.equal(resumed(winding, x, plan, late)[0], winding(x))


@torch.no_grad()
def test_only_what_is_read_later_is_kept(winding) -> None:
    plan, x = outline(winding, images(2)), images(3)
    assert taken(winding, x, plan.starts["second"]).bytes == winding.first(x).nbytes
    last = taken(winding, x, plan.starts["head"])
    assert last.bytes == 3 * 8 * 4


@torch.no_grad()
def test_what_comes_later_may_have_changed(winding) -> None:
    plan, x = outline(winding, images(2)), images(3)
    snapshot = taken(winding, x, plan.starts["third"])
    winding.third.weight.mul_(2.0)
    assert torch.equal(resumed(winding, x, plan, snapshot)[0], winding(x))
    winding.first.weight.mul_(2.0)
    assert not torch.equal(resumed(winding, x, plan, snapshot)[0], winding(x))
