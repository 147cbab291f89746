"""Masks that are learned with the weights and then frozen."""

from dataclasses import replace

import pytest
import torch

from subnet_search.entwined import gates, train_phases
from subnet_search.entwined.gates import learned
from subnet_search.errors import SubnetSearchError
from subnet_search.masks import MaskSet
from subnet_search.search import search_masks


def phases_of(small, epochs: int = 4, **changes: object):
    training = replace(small.training, epochs=epochs)
    search = small.searching("gates", **{"gate_noise": 0.2, "gate_rate": 2.0, **changes})
    return gates(small.graph.widths, small.quotas(), search, training, 48, small.scores(), recalibrate=1)


def flow_of(small) -> MaskSet:
    return search_masks(small.scores(), small.graph.widths, small.quotas(), small.searching("flow"))


def test_masks_start_as_flow_and_are_learned_with_exact_quotas(small) -> None:
    ensemble, flow = small.intact(), flow_of(small)
    history = train_phases(ensemble, phases_of(small), small.data)
    found = ensemble.masks
    assert dict(found.widths) == small.quotas()
    assert found.digest() != flow.digest()
    assert (found.algorithm, found.notes["started_from"]) == ("gates", flow.digest())
    assert history.samples_seen == 4 * 48
    assert len(history.losses) == 4
    new = sum(int((mask & ~flow.masks[name]).sum()) for name, mask in found.masks.items())
    thinned = [name for name, mask in flow.masks.items() if not mask.all()]
    assert found.notes["moved"] == new / sum(int(flow.masks[name].sum()) for name in thinned) > 0
    for figure in ("overlap", "relevance", "objective"):
        assert found.notes[figure] != flow.notes[figure]
    assert found.notes["objective"] < flow.notes["objective"]  # which was the best there is


@pytest.mark.parametrize("changes", [{"gate_rate": 0.0}, {"train_share": 0.0}])
def test_gates_that_do_not_move_leave_flow(small, changes) -> None:
    ensemble, flow = small.intact(), flow_of(small)
    train_phases(ensemble, phases_of(small, **changes), small.data)
    assert ensemble.masks.digest() == flow.digest()
    assert ensemble.notes["moved"] == 0
    for figure in ("overlap", "relevance", "objective"):
        assert ensemble.notes[figure] == pytest.approx(flow.notes[figure])


def test_gates_start_from_other_masks_too(small) -> None:
    ensemble = small.intact()
    train_phases(ensemble, phases_of(small, start="random", gate_rate=0.0), small.data)
    random = search_masks(None, small.graph.widths, small.quotas(), small.searching("random"))
    assert ensemble.masks.digest() == random.digest()
    for start in ("magnitude", "best-of-n"):
        with pytest.raises(SubnetSearchError, match=f"gates cannot start from '{start}'"):
            phases_of(small, start=start)


def test_the_second_phase_trains_what_was_learned(small) -> None:
    ensemble = small.intact()
    first, last = phases_of(small)
    assert (first.config.epochs, last.config.epochs, last.masks, last.through) == (2, 2, None, None)
    assert first.config.seed != last.config.seed
    train_phases(ensemble, [first], small.data)
    digest, weight = ensemble.masks.digest(), ensemble.network.conv1.weight.clone()
    assert not torch.equal(weight, small.network.conv1.weight)
    train_phases(ensemble, [last], small.data)
    assert ensemble.masks.digest() == digest
    assert not torch.equal(weight, ensemble.network.conv1.weight)


@pytest.mark.parametrize("mode", ["split", "repeat", "independent"])
def test_for_the_correlation_all_members_see_the_same_images(small, mode) -> None:
    plain = replace(small, training=replace(small.training, mode=mode, bagging=mode == "independent"))
    first, last = phases_of(plain, gate_corr=0.3)
    assert (first.config.mode, first.config.bagging, first.config.decorrelate) == ("repeat", False, 0.3)
    bootstraps = plain.training.seed if plain.training.bagging else None
    assert last.config == replace(plain.training, epochs=2, seed=last.config.seed, bootstraps=bootstraps)
    ensemble = small.intact()
    history = train_phases(ensemble, [first, last], small.data)
    assert history.samples_seen == 4 * 48 * (1 if mode == "split" else 3)
    assert dict(ensemble.masks.widths) == small.quotas()


def test_an_interruption_while_gates_are_learned_changes_nothing(small, tmp_path) -> None:
    first, last = phases_of(small)
    undisturbed = small.intact()
    train_phases(undisturbed, [first, last], small.data)
    # one of the two epochs, as an interrupted training leaves it
    step, steps = torch.optim.SGD.step, 0

    def stopping(*arguments, **named):
        nonlocal steps
        steps += 1
        if steps == 6:  # of four in an epoch
            raise InterruptedError("in the middle")
        return step(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", stopping)
        with pytest.raises(InterruptedError, match="in the middle"):
            train_phases(small.intact(), [first, last], small.data, tmp_path)
    resumed = small.intact()
    train_phases(resumed, [first, last], small.data, tmp_path)
    assert resumed.masks.digest() == undisturbed.masks.digest()
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, undisturbed.state_dict()[name]), name


def test_branches_that_members_leave_out_stay_as_they_are(small) -> None:
    """Seen on masks alone: the network has no branches."""
    ensemble, flow = small.intact(), flow_of(small)
    ensemble.set_masks(flow)
    with learned(ensemble, small.scores(), small.searching("gates"), small.training, 8) as gated:
        assert all(mask.all() for mask in ensemble.masks.masks.values())
        assert set(gated.groups) == {name for name, mask in flow.masks.items() if not mask.all()}
    assert ensemble.masks.digest() == flow.digest()


def test_another_seed_draws_other_noise(small) -> None:
    found = []
    for seed in (0, 0, 1):
        ensemble = small.intact()
        train_phases(ensemble, phases_of(small, seed=seed), small.data)
        found.append(ensemble.network.conv1.weight)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
