from collections.abc import Callable

import torch
from torch import Tensor, nn

from subnet_search.packed import timing


class Noted(nn.Module):
    """Notes its passes, and takes as long as the clock is told."""

    def __init__(self, name: str, calls: list[str], advance: Callable[[], None]) -> None:
        super().__init__()
        self.name, self.calls, self.advance = name, calls, advance

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(self.name)
        self.advance()
        return x


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def network(self, name: str, calls: list[str], seconds: float) -> Noted:
        def advance() -> None:
            self.now += seconds

        return Noted(name, calls, advance)


def test_turns_alternate_and_end_in_time(monkeypatch) -> None:
    clock, calls = Clock(), []
    monkeypatch.setattr(timing, "time", clock)
    networks = {"a": clock.network("a", calls, 1.0), "b": clock.network("b", calls, 1.5)}
    times = timing.interleaved_ms(networks, torch.zeros(1, 2), seconds=6.0)
    assert calls == ["a", "b"] * 5  # to warm up, the first turn, and three that begin within six seconds
    assert times == {"a": [1000.0] * 4, "b": [1500.0] * 4}


def test_what_is_far_behind_is_measured_once(monkeypatch) -> None:
    clock, calls = Clock(), []
    monkeypatch.setattr(timing, "time", clock)
    networks = {name: clock.network(name, calls, s) for name, s in (("slow", 5.0), ("a", 1.0), ("b", 1.0))}
    times = timing.interleaved_ms(networks, torch.zeros(1, 2), seconds=1.0)
    assert times["slow"] == [5000.0]
    assert len(times["a"]) == len(times["b"]) == 2
    assert list(timing.medians(times)) == ["a", "b", "slow"]


def test_medians() -> None:
    assert timing.medians({"a": [3.0, 1.0, 9.0], "b": [2.0]}) == {"b": 2.0, "a": 3.0}


def test_pauses_are_not_timed(monkeypatch) -> None:
    clock, calls = Clock(), []
    monkeypatch.setattr(timing, "time", clock)
    networks = {"a": clock.network("a", calls, 1.0)}
    times = timing.interleaved_ms(networks, torch.zeros(1, 2), seconds=100.0, most=4, pause=0.5)
    assert times == {"a": [1000.0] * 4}
    assert clock.now == 7.5  # with the pass to warm up


def test_quartiles_by_hand() -> None:
    assert timing.quartiles([5.0, 1.0, 2.0, 4.0, 3.0]) == (2.0, 4.0)
    assert timing.quartiles([2.0, 1.0]) == (1.25, 1.75)
    assert timing.quartiles([3.0]) == (3.0, 3.0)
