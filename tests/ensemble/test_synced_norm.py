"""Normalisation over the rows of several processes: alone it is PyTorch's; two parts together are the whole."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from subnet_search.ensemble.synced_norm import SyncedNorms

SHAPES = [(6, 4), (6, 4, 5), (6, 4, 3, 2), (6, 4, 2, 3, 2)]


class Threads:
    """Processes played by threads: `torch.distributed` as far as it is needed here."""

    def __init__(self, count: int) -> None:
        self.count, self.barrier = count, threading.Barrier(count, timeout=20)
        self.number = threading.local()
        self.given: list[Tensor] = [torch.zeros(())] * count

    def all_reduce(self, tensor: Tensor) -> None:
        self.given[self.number.value] = tensor.clone()
        self.barrier.wait()
        total = torch.stack(self.given).sum(0)
        self.barrier.wait()
        tensor.copy_(total)

    def run(self, function: Callable[[int], Any]) -> list[Any]:
        results: list[Any] = [None] * self.count

        def work(number: int) -> None:
            self.number.value = number
            with suppress(threading.BrokenBarrierError):
                try:
                    results[number] = function(number)
                except BaseException:
                    self.barrier.abort()
                    raise

        threads = [threading.Thread(target=work, args=(number,)) for number in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Threads]:
    def make(count: int) -> Threads:
        threads = Threads(count)
        monkeypatch.setattr(dist, "all_reduce", threads.all_reduce)
        monkeypatch.setattr(dist, "get_world_size", lambda: count)
        monkeypatch.setattr(dist, "get_rank", lambda: threads.number.value)
        return threads

    return make


def inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)

    return draw(*shape) * 2 + 5, draw(shape[1]), draw(shape[1]), draw(*shape)


def normalised(x: Tensor, weight: Tensor | None, bias: Tensor | None, slope: Tensor) -> list[Tensor]:
    """Result, running statistics and gradients."""
    leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias) if tensor is not None]
    affine = leaves[1:] or [None, None]
    mean, variance = torch.zeros(x.shape[1], dtype=torch.float64), torch.ones(x.shape[1], dtype=torch.float64)
    if x.dtype != torch.float64:
        mean, variance = mean.float(), variance.float()
    out = F.batch_norm(leaves[0], mean, variance, *affine, True, 0.3, 1e-3)
    return [out.detach(), mean, variance, *torch.autograd.grad((out * slope).sum(), leaves)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_two_parts_are_the_whole(processes, shape, affine) -> None:
    x, weight, bias, slope = inputs(shape)
    own = (weight, bias) if affine else (None, None)
    expected = normalised(x, *own, slope)

    def part(number: int) -> list[Tensor]:
        rows = (slice(0, 2), slice(2, 6))[number]  # of unequal size
        with SyncedNorms():
            return normalised(x[rows], *own, slope[rows])

    first, second = processes(2).run(part)
    torch.testing.assert_close(torch.cat([first[0], second[0]]), expected[0])
    for statistic in (1, 2):
        torch.testing.assert_close(first[statistic], expected[statistic])
        torch.testing.assert_close(second[statistic], expected[statistic])
    torch.testing.assert_close(torch.cat([first[3], second[3]]), expected[3])
    for parameter in range(4, len(expected)):  # each part has the gradient of its own rows
        torch.testing.assert_close(first[parameter] + second[parameter], expected[parameter])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_types_are_those_of_pytorch(processes, dtype) -> None:
    x, _, _, slope = inputs((6, 4, 3, 2), dtype)
    weight, bias = torch.ones(4), torch.zeros(4)
    expected = normalised(x, weight, bias, slope)

    def alone(_: int) -> list[Tensor]:
        with SyncedNorms():
            return normalised(x, weight, bias, slope)

    (got,) = processes(1).run(alone)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=2e-2, atol=2e-2)


def test_in_use_nothing_is_asked_of_others(monkeypatch) -> None:
    monkeypatch.setattr(dist, "all_reduce", lambda *_: pytest.fail("asked"))
    norm = nn.BatchNorm1d(3).eval()
    x = torch.randn(1, 3, generator=torch.Generator().manual_seed(0))
    with SyncedNorms():
        assert torch.equal(norm(x), x / (1 + norm.eps) ** 0.5)
