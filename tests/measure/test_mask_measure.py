"""Mask sets measured fast, against the same measured slowly."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from subnet_search.backbones import Backbone, load_backbone
from subnet_search.data import load_data
from subnet_search.data.array_dataset import ArrayDataset
from subnet_search.ensemble import EnsembleConfig, SubnetEnsemble, recalibrate
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import predict_dataset
from subnet_search.evaluate.classification import negative_log_likelihood
from subnet_search.groups import GroupGraph, find_groups
from subnet_search.masks import MaskSet, full_masks
from subnet_search.measure import MaskMeasure, mask_measure

MEMBERS = 3
CALIBRATION, SAMPLES = 32, 50


@pytest.fixture(scope="module")
def digits() -> tuple[Backbone, GroupGraph, ArrayDataset]:
    backbone = load_backbone("digits")
    graph = find_groups(backbone.model, torch.zeros(2, 1, 8, 8))
    return backbone, graph, load_data("digits", backbone.card).subset(range(120))


def ensemble_of(digits) -> SubnetEnsemble:
    backbone, graph, _ = digits
    return SubnetEnsemble(backbone.model, graph, full_masks(graph.widths, MEMBERS), backbone.card)


def measure_of(digits, **settings) -> MaskMeasure:
    settings = {"samples": SAMPLES, "calibration": CALIBRATION, "seed": 5, "precision": "fp32", **settings}
    return MaskMeasure(ensemble_of(digits), digits[2], **settings)


def random_masks(graph: GroupGraph, seed: int, keep: float = 0.6) -> MaskSet:
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, width in graph.widths.items():
        order = torch.rand(MEMBERS, width, generator=generator).argsort(dim=1)
        masks[name] = order < max(1, round(keep * width))
    return MaskSet(masks, "lot")


def steps(graph: GroupGraph, count: int) -> Iterator[MaskSet]:
    """A walk that changes one group of one member at a time, now below and now above the last one, and goes back."""
    masks = dict(random_masks(graph, 0).masks)
    generator = torch.Generator().manual_seed(1)
    names = list(masks)
    for number in range(count):
        name = names[int(torch.randint(len(names), (1,), generator=generator))]
        member = int(torch.randint(MEMBERS, (1,), generator=generator))
        changed = {**masks, name: masks[name].clone()}
        changed[name][member] = masks[name][member].roll(1 + number)
        yield MaskSet(changed, "walk")
        if number % 3 == 0:
            masks = changed


@pytest.mark.parametrize("seed", [0, 1])
def test_it_equals_recalibration_and_evaluation_of_the_whole_ensemble(digits, seed) -> None:
    _, graph, data = digits
    masks = random_masks(graph, seed)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(5))
    statistics, judged = data.subset(order[:CALIBRATION]), data.subset(order[CALIBRATION : CALIBRATION + SAMPLES])
    naive = ensemble_of(digits)
    naive.set_masks(masks)
    recalibrate(naive, statistics, samples=CALIBRATION, batch_size=CALIBRATION, precision="fp32")
    outputs = predict_dataset(naive, judged, naive.card, precision="fp32")
    measure = measure_of(digits)
    got = measure.member_probabilities(masks)
    torch.testing.assert_close(got, outputs.member_probabilities, rtol=1e-3, atol=1e-5)
    wanted = negative_log_likelihood(outputs.member_probabilities.mean(dim=0), outputs.labels)
    assert measure(masks) == pytest.approx(wanted, rel=1e-4)


def test_what_is_kept_from_earlier_masks_changes_nothing(digits) -> None:
    measure = measure_of(digits)
    skipped = 0
    for masks in steps(digits[1], 25):
        fresh = measure_of(digits).member_probabilities(masks)
        torch.testing.assert_close(measure.member_probabilities(masks), fresh, rtol=1e-4, atol=1e-6)
        skipped += sum(runner.kept is not None for runner in measure._runners)
    assert skipped > 0


class EarlyPad(nn.Module):
    """Two blocks, the second with a shortcut that is padded before its layers are run."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.one, self.one_norm = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.two, self.two_norm = nn.Conv2d(6, 10, 3, padding=1, bias=False), nn.BatchNorm2d(10)
        self.head = nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.stem_norm(self.stem(x)))
        out = out + F.relu(self.one_norm(self.one(out)))
        short = F.pad(out, (0, 0, 0, 0, 2, 2))
        out = F.relu(self.two_norm(self.two(out)) + short)
        logits: Tensor = self.head(out.mean(dim=(2, 3)))
        return logits


def test_what_a_padding_before_the_layers_of_a_group_has_made_is_not_kept_for_another_mask(digits) -> None:
    backbone, _, data = digits
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = EarlyPad().eval()
    graph = find_groups(network, torch.zeros(2, 1, 8, 8))
    padded = replace(backbone, model=network), graph, data
    measure, walk = measure_of(padded), list(steps(graph, 40))
    for masks in walk:
        torch.testing.assert_close(measure.member_probabilities(masks), measure_of(padded).member_probabilities(masks))
    assert {label[0] for labels in graph.resizes[0].labels for label in labels if label} == {"stem", "two"}
    assert any(runner.kept is not None for runner in measure._runners)


class Twice(nn.Module):
    """A block that runs on two halves of an image, one of them darker."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.hidden, self.head = nn.Linear(12, 6), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        halves = (x[..., :4], 0.3 * x[..., 4:] - 1)
        found = torch.cat([F.relu(self.norm(self.conv(half))).mean(dim=(2, 3)) for half in halves], dim=1)
        logits: Tensor = self.head(F.relu(self.hidden(found)))
        return logits


def test_a_layer_that_runs_twice_has_the_statistics_of_both(digits) -> None:
    backbone, _, data = digits
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Twice().eval()
    twice = replace(backbone, model=network), find_groups(network, torch.zeros(2, 1, 8, 8)), data
    measure = measure_of(twice)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(5))
    for masks in steps(twice[1], 6):
        naive = ensemble_of(twice)
        naive.set_masks(masks)
        recalibrate(
            naive, data.subset(order[:CALIBRATION]), samples=CALIBRATION, batch_size=CALIBRATION, precision="fp32"
        )
        judged = data.subset(order[CALIBRATION : CALIBRATION + SAMPLES])
        wanted = predict_dataset(naive, judged, naive.card, precision="fp32").member_probabilities
        torch.testing.assert_close(measure.member_probabilities(masks), wanted, rtol=1e-3, atol=1e-5)


def test_only_members_that_have_changed_are_run_and_none_twice(digits, monkeypatch) -> None:
    measure = measure_of(digits)
    runs = []
    original = mask_measure._Member.run
    monkeypatch.setattr(
        mask_measure._Member, "run", lambda self, *rest: runs.append(self.member) or original(self, *rest)
    )
    first, *_ = walk = list(steps(digits[1], 2))
    for masks in (*walk, first):
        measure(masks)
    assert runs[:MEMBERS] == list(range(MEMBERS))
    assert 0 < len(runs[MEMBERS:]) <= 2  # the second masks differ in one or two members, the third were there before


def test_the_next_candidate_of_a_group_skips_what_lies_below(digits, monkeypatch) -> None:
    _, graph, _ = digits
    measure, base = measure_of(digits), random_masks(graph, 0)
    measure(base)
    last = max(graph.widths, key=lambda name: measure._runners[0].places[name])
    starts = []
    original = mask_measure.resumed

    def noted(network, x, plan, start=None, keep=None):
        starts.append(0 if start is None else start.number)
        return original(network, x, plan, start, keep)

    monkeypatch.setattr(mask_measure, "resumed", noted)
    for shift in (1, 2, 3):
        changed = {name: mask.clone() for name, mask in base.masks.items()}
        changed[last][0] = base.masks[last][0].roll(shift)
        measure(MaskSet(changed, "walk"))
    parts = len(starts) // 3
    assert starts[:parts] == [0] * parts
    assert min(starts[parts:]) > 0
    assert set(starts[parts:]) == set(measure._runners[0].places[last])


def test_branches_that_a_member_leaves_out_count(digits) -> None:
    _, graph, _ = digits
    measure, masks = measure_of(digits), random_masks(graph, 0)
    site = graph.branches[-1].site
    shallow = MaskSet(masks.masks, "lot", depth={site: torch.tensor([True, False, True])})
    whole, got = measure.member_probabilities(masks), measure.member_probabilities(shallow)
    assert torch.equal(whole[0], got[0])
    assert not torch.allclose(whole[1], got[1])
    torch.testing.assert_close(got, measure_of(digits).member_probabilities(shallow))


class Noted(Dataset):
    """Notes which samples are read."""

    def __init__(self, data: ArrayDataset) -> None:
        self.data, self.read = data, []

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.read.append(index)
        return self.data[index]


def test_statistics_and_likelihood_are_of_different_images(digits) -> None:
    noted = Noted(digits[2])
    measure = MaskMeasure(ensemble_of(digits), noted, samples=1000, calibration=1000, precision="fp32")
    assert not noted.read  # nothing is read before something is measured
    measure(random_masks(digits[1], 0))
    assert sorted(noted.read) == list(range(120))
    assert len(measure._loaded.calibration) == 40
    assert len(measure._loaded.labels) == 80
    measure(random_masks(digits[1], 1))
    assert len(noted.read) == 120


def test_augmentation_is_drawn_once_and_by_the_seed(digits) -> None:
    masks, other = random_masks(digits[1], 0), random_masks(digits[1], 1)
    plain = measure_of(digits)(masks)
    measure = measure_of(digits, augment="crop")
    value = measure(masks)
    assert value != plain
    measure(other)
    measure._answers.clear()
    assert measure(masks) == value
    assert measure_of(digits, augment="crop")(masks) == value
    assert measure_of(digits, augment="crop", seed=6)(masks) != value


def test_weights_and_global_randomness_are_left_alone(digits) -> None:
    ensemble = ensemble_of(digits)
    before = {name: tensor.clone() for name, tensor in ensemble.state_dict().items() if "mask" not in name}
    state = torch.get_rng_state()
    MaskMeasure(ensemble, digits[2], precision="fp32")(random_masks(digits[1], 0))
    after = ensemble.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert torch.equal(torch.get_rng_state(), state)


class Moody(nn.Module):
    """A network whose answer is never the same."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.calls = network, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.network(x) + self.calls
        return out


def test_a_network_that_cannot_be_resumed_is_run_whole(digits, monkeypatch) -> None:
    original = mask_measure.slice_member
    monkeypatch.setattr(mask_measure, "slice_member", lambda *arguments: Moody(original(*arguments)))
    measure = measure_of(digits)
    for masks in steps(digits[1], 3):
        torch.testing.assert_close(  # the same number for all classes changes no probability
            measure.member_probabilities(masks), measure_of(digits).member_probabilities(masks)
        )
    assert all(set(runner.places.values()) == {(0, 0)} for runner in measure._runners)
    assert all(runner.kept is None for runner in measure._runners)


def test_errors(digits) -> None:
    backbone, graph, data = digits
    shared = SubnetEnsemble(
        backbone.model, graph, full_masks(graph.widths, MEMBERS), backbone.card, EnsembleConfig("shared")
    )
    with pytest.raises(SubnetSearchError, match="got norm=shared"):
        MaskMeasure(shared, data)
    with pytest.raises(SubnetSearchError, match="got 2 images to measure masks on, expected at least 3"):
        MaskMeasure(ensemble_of(digits), data.subset(range(2)))
