"""Peak memory, against networks that are known to take a certain amount."""

import sys

import pytest
import torch
from torch import Tensor, nn

from subnet_search.bench import memory
from subnet_search.bench.memory import peak_memory

MEGA = 2**20


class Hungry(nn.Module):
    """Has weights of `held` bytes, and fills `taken` bytes in a pass."""

    def __init__(self, held: int, taken: int) -> None:
        super().__init__()
        self.weights = nn.Buffer(torch.ones(held, dtype=torch.uint8))
        self.taken = taken

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.ones(self.taken, dtype=torch.uint8, device=x.device).amax()


def measured(held: int, taken: int, device: str = "cpu") -> int:
    network, x = Hungry(held * MEGA, taken * MEGA).to(device), torch.zeros(1, device=device)
    network(x)
    found = peak_memory(network, x)
    if found is None:
        pytest.skip("the system does not tell")
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")
@pytest.mark.parametrize(("held", "taken"), [(1, 64), (48, 16), (48, 1)])
def test_weights_and_what_a_pass_holds_at_once(held, taken) -> None:
    assert measured(held, taken) / MEGA == pytest.approx(held + taken, abs=4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_it_is_what_pytorch_allocates() -> None:
    assert measured(48, 16, "cuda") / MEGA == pytest.approx(64, abs=4)


def test_none_where_the_system_does_not_tell(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "no status")
    assert peak_memory(Hungry(1, 1), torch.zeros(1)) is None
    monkeypatch.undo()
    monkeypatch.setattr(memory, "_CLEAR", tmp_path)  # a folder cannot be written to
    assert peak_memory(Hungry(1, 1), torch.zeros(1)) is None
    assert peak_memory(Hungry(1, 1).to("meta"), torch.zeros(1, device="meta")) is None
