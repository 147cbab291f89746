"""What every system does alike."""

import pytest
import torch
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.ensemble.predictor import Predictor
from subnet_search.errors import SubnetSearchError


class Shifted(Predictor):
    """K members that differ by a constant; raises where it is told to."""

    def __init__(self, members: int, broken: bool = False) -> None:
        super().__init__()
        self.members = members
        self.card = Card("own", (1, 2, 2), ("a", "b"), (0.5,), (0.25,))
        self.linear = nn.Linear(4, 2)
        self.frozen = nn.BatchNorm1d(2).eval()
        self.broken = broken
        self.seen: list[tuple[bool, Tensor]] = []

    def forward(self, x: Tensor, repeat: bool = True) -> Tensor:
        self.seen.append((self.frozen.training or self.linear.training, x))
        if self.broken:
            raise RuntimeError("broken")
        logits = self.linear(self._rows(x, repeat).flatten(1)).unflatten(0, (self.members, -1))
        return logits + torch.arange(self.members).view(-1, 1, 1) * torch.tensor([1.0, 0.0])

    def macs(self) -> int:
        return 8 * self.members

    def identity(self) -> dict[str, int]:
        return {"members": self.members}


@pytest.mark.parametrize("members", [1, 3])
def test_images_are_prepared_and_all_members_asked_in_eval_mode(members) -> None:
    predictor = Shifted(members).train()
    predictor.frozen.eval()
    images = torch.rand(4, 1, 2, 2)
    answer = predictor.predict(images)
    ((training, x),) = predictor.seen
    assert not training
    torch.testing.assert_close(x, (images - 0.5) / 0.25)
    expected = predictor(x).softmax(dim=2).double()
    torch.testing.assert_close(answer.member_probabilities, expected)
    assert (predictor.training, predictor.linear.training, predictor.frozen.training) == (True, True, False)
    assert not answer.probabilities.requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_of_another_type_is_asked_in_its_own(dtype) -> None:
    predictor = Shifted(2).to(dtype)
    images = torch.rand(4, 1, 2, 2)
    answer = predictor.predict(images)
    ((_, x),) = predictor.seen
    assert x.dtype == dtype
    torch.testing.assert_close(x.float(), (images - 0.5) / 0.25, rtol=1e-2, atol=1e-2)
    expected = predictor.float().predict(images).probabilities
    torch.testing.assert_close(answer.probabilities, expected, rtol=0.05, atol=0.05)


def test_modes_come_back_where_the_network_fails() -> None:
    predictor = Shifted(2, broken=True).train()
    with pytest.raises(RuntimeError, match="broken"):
        predictor.predict(torch.rand(4, 1, 2, 2))
    assert predictor.training


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(0, 1, 2, 2), "got no images, expected at least one"),
        (torch.full((1, 1, 2, 2), float("nan")), "NaN"),
        (torch.full((1, 1, 2, 2), 2.0), r"expected \[0, 1\]"),
    ],
)
def test_what_are_no_images_is_refused(images, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        Shifted(2).predict(images)


def test_rows_are_member_major() -> None:
    predictor = Shifted(3)
    x = torch.rand(6, 1, 2, 2)
    repeated = predictor(x)
    assert torch.equal(predictor(torch.cat([x, x, x]), repeat=False), repeated)
    apart = predictor(x, repeat=False)
    for k in range(3):
        torch.testing.assert_close(apart[k], repeated[k, 2 * k : 2 * k + 2])
    with pytest.raises(SubnetSearchError, match="got 5 member-major rows, expected a multiple of the 3 members"):
        predictor(x[:5], repeat=False)


def test_a_row_takes_in_one_image_unless_it_is_told_otherwise() -> None:
    assert Shifted(2).inputs == 1


def test_a_system_without_cost_or_identity_cannot_be_made() -> None:
    class Half(Predictor):
        def forward(self, x: Tensor, repeat: bool = True) -> Tensor:
            return x if repeat else -x

    with pytest.raises(TypeError, match="abstract"):
        Half()
