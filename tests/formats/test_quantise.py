"""Eight-bit integers, and that their cost is measured on the file itself."""

import json

import pytest
import torch
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.data.array_dataset import ArrayDataset
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.calibration import expected_calibration_error
from subnet_search.formats.deployable import OUTPUTS, Deployable
from subnet_search.formats.optional import quiet
from subnet_search.formats.pte import export_pte
from subnet_search.formats.quantise import measure_cost, quantise

SQUARE = Card("square", (1, 4, 4), ("a", "b", "c", "d"))
SQUARES = ArrayDataset(
    torch.randint(0, 256, (24, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8),
    torch.arange(24) % 4,
)


@pytest.fixture(autouse=True)
def edge_packages(needs) -> None:
    needs("edge")


def test_the_cost_is_that_of_the_file(tmp_path, digits, packed, digits_data) -> None:
    train, test = digits_data
    labelled = test.subset(range(61))  # the last batch is half full
    network = packed(digits, "grouped")
    sets = {"calibration": train.subset(range(64)), "labelled": labelled}
    written = export_pte(
        network, digits.card, tmp_path / "net.pte", batch=2, refuse={"total": 9.0, "energy": 9.0}, **sets
    )
    float_bytes = sum(tensor.nbytes for tensor in Deployable(network, digits.card).state_dict().values())
    assert written.bytes < float_bytes
    assert not [name for name in written.outside if "conv" in name or "quantize" in name]
    cost = written.int8
    assert cost is not None
    assert cost.images == 61
    before = digits.predict(labelled.images).probabilities
    assert cost.before.accuracy == pytest.approx(float((before.argmax(dim=1) == labelled.labels).float().mean()))
    assert cost.before.ece == pytest.approx(expected_calibration_error(before, labelled.labels), abs=1e-4)
    with quiet():
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(written.path)
        method = program.load_method("forward")
        (told,) = program.load_method("refuse").execute([])
    pairs = [labelled.images[[k, min(k + 1, 60)]] for k in range(0, 61, 2)]
    answers = [[output.clone() for output in method.execute([pair])] for pair in pairs]
    after = torch.cat([answer[0] for answer in answers]).double()[:61]
    assert cost.after.accuracy == pytest.approx(float((after.argmax(dim=1) == labelled.labels).float().mean()))
    assert cost.after.nll == pytest.approx(float(-after[torch.arange(61), labelled.labels].log().mean()), rel=1e-4)
    limits = json.loads(told)  # its own, and not those of the network in float32
    assert list(limits) == ["total", "energy"]
    for name, limit in limits.items():
        scores = torch.cat([answer[list(OUTPUTS).index(name)] for answer in answers])[:61]
        assert 0.02 < float((scores > limit["above"]).float().mean()) < 0.09  # 5 % of the images that it was found on
    assert (before - after).abs().max() < 0.1
    assert abs(cost.after.nll - cost.before.nll) < 0.1


def test_weights_are_integers_and_the_rest_stays_as_it_was(digits, packed, digits_data, noise) -> None:
    deployable = Deployable(packed(digits, "grouped"), digits.card)
    before = {name: tensor.clone() for name, tensor in deployable.state_dict().items()}
    rounded = quantise(deployable, digits_data[0], images=40, batch_size=16)
    assert set(before) == set(deployable.state_dict())
    assert all(torch.equal(before[name], tensor) for name, tensor in deployable.state_dict().items())
    integers = sum(buffer.numel() for buffer in rounded.network.buffers() if buffer.dtype == torch.int8)
    convolutions = sum(tensor.numel() for name, tensor in before.items() if tensor.ndim == 4)
    assert integers >= convolutions
    images = noise(digits.card, 20)
    with torch.no_grad():
        exact, found = deployable(images)[0], rounded(images)[0]
        alone = torch.cat([rounded(image[None])[0] for image in images])
    assert 1e-5 < (exact - found).abs().mean() < 0.05
    assert torch.allclose(alone, found, atol=1e-2)  # the scales are fixed: no image changes those of another


def test_exact_answers_cost_nothing(digits, digits_data) -> None:
    """A closed form: the network itself as the runtime, which takes three images at a time."""
    deployable = Deployable(digits, digits.card, "float")
    seen = []

    def run(images: Tensor) -> tuple[Tensor, ...]:
        seen.append(len(images))
        with torch.no_grad():
            return tuple(deployable(images))

    cost = measure_cost(digits, deployable, run, digits_data[1].subset(range(10)), 3)
    assert seen == [3, 3, 3, 3]
    assert cost.after.accuracy == cost.before.accuracy
    assert cost.after.nll == pytest.approx(cost.before.nll, rel=1e-4)
    assert cost.after.ece == pytest.approx(cost.before.ece, abs=1e-4)


def test_nothing_to_calibrate_with_is_refused(digits, digits_data) -> None:
    deployable = Deployable(digits, digits.card)
    with pytest.raises(SubnetSearchError, match="got 0 images in batches of 32 to calibrate with, expected at least 1"):
        quantise(deployable, digits_data[0], images=0)

    class Empty(ArrayDataset):
        def __len__(self) -> int:
            return 0

    with pytest.raises(SubnetSearchError, match="got no images to calibrate the quantisation with"):
        quantise(deployable, Empty(digits_data[0].images, digits_data[0].labels))


class Small(nn.Module):
    """A convolution, something in the middle, the same convolution for a second time, and a head."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.second, self.head = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 4)
        self.middle = middle.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.middle(self.second(self.first(x)).relu()))
        return self.head(x.mean(dim=(2, 3)))


class Mapped(nn.Module):
    """What the grouped form does with operations that it has no rule for."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(torch.ops.aten.hardswish.default, in_dims=1, out_dims=1)(x)


class OfOneSize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.arange(1, int(x.shape[0]) + 1).clamp(max=1)[:, None, None, None]


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_layer_that_is_used_twice_is_quantised_twice_and_loads(tmp_path) -> None:
    """The quantiser passed over its second use, of which XNNPACK then got integers with float weights."""
    written = export_pte(
        Small(nn.ReLU()), SQUARE, tmp_path / "net.pte", calibration=SQUARES, images=SQUARES.images, tolerance=0.05
    )
    assert written.path.stat().st_size == written.bytes
    assert not [name for name in written.outside if "conv" in name or "quantize" in name]


@pytest.mark.parametrize("middle", [Mapped(), OfOneSize()])
def test_mapped_operations_and_networks_of_one_batch_size_are_quantised(middle) -> None:
    deployable = Deployable(Small(middle), SQUARE)
    rounded = quantise(deployable, SQUARES, images=20, batch_size=8, batch=3)
    images = SQUARES.images[:7]
    with torch.no_grad():
        exact, found = deployable(images)[0], rounded(images)[0]
        alone = torch.cat([rounded(image[None])[0] for image in images])
    assert found.shape == exact.shape == (7, 4)
    assert 1e-7 < (exact - found).abs().max() < 0.05
    torch.testing.assert_close(alone, found, atol=1e-2, rtol=0)


def test_a_network_that_cannot_be_quantised_is_told_in_one_line() -> None:
    with pytest.raises(
        SubnetSearchError, match=r"^the network cannot be quantised \(.+: .+\); export it without int8$"
    ):
        quantise(Deployable(Small(Branching()), SQUARE), SQUARES)
    with pytest.raises(SubnetSearchError, match="got a batch of 0 images, expected at least 1"):
        quantise(Deployable(Small(nn.ReLU()), SQUARE), SQUARES, batch=0)
