"""Parameters, latency and memory."""

import time

import pytest
import torch
from torch import Tensor, nn

from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.cost import latency_ms, unique_parameters


class Sleeper(nn.Module):
    """Takes a known time, the first passes much longer, and tells in which mode it was."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.trained = False

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.trained |= self.training
        time.sleep(0.05 if self.calls <= 2 else 0.005)
        return x


def test_shared_parameters_count_once() -> None:
    layer = nn.Linear(3, 3)
    network = nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(3, 2))
    assert unique_parameters(network) == 12 + 8


def test_latency_is_the_median_after_the_warmup_in_eval_mode() -> None:
    network = Sleeper().train()
    measured = latency_ms(network, torch.zeros(1), repeats=5, warmup=2)
    assert 5.0 <= measured < 50.0
    assert network.calls == 7
    assert not network.trained
    assert network.training


def test_latency_needs_a_pass() -> None:
    with pytest.raises(SubnetSearchError, match="repeats is 0, expected at least 1"):
        latency_ms(nn.Identity(), torch.zeros(1), repeats=0)
