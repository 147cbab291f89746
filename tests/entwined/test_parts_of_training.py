"""A training in parts sees as many samples as one that is whole."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from subnet_search.entwined.parts import Part, epochs_of_search, reseeded, shared_out, shown_to_all
from subnet_search.finetune import FinetuneConfig, order_of_epoch, steps_of_epoch

configs = st.builds(
    FinetuneConfig,
    epochs=st.integers(0, 7),
    batch_size=st.integers(1, 40),
    mode=st.sampled_from(["split", "repeat", "independent"]),
    bagging=st.booleans(),
    seed=st.integers(0, 100),
)


def rows_and_steps(part: Part, images: int, members: int) -> tuple[int, int]:
    """Rows that go through the network in a part, and its steps."""
    config, shown = part
    count = images if shown is None else len(shown)
    if config.epochs == 0:
        return 0, 0
    steps = steps_of_epoch(config, count, members)
    return order_of_epoch(config, count, members, 0).numel() * config.epochs, steps * config.epochs


@given(config=configs, parts=st.integers(1, 9), images=st.integers(8, 90), members=st.integers(1, 5))
def test_parts_add_up_to_the_whole(config: FinetuneConfig, parts: int, images: int, members: int) -> None:
    found = shared_out(config, parts, images, members)
    assert len(found) == parts
    sizes = [rows_and_steps(part, images, members) for part in found]
    whole = rows_and_steps((config, None), images, members)
    assert tuple(map(sum, zip(*sizes, strict=True))) == whole
    longest = max(steps for _, steps in sizes) - min(steps for _, steps in sizes)
    assert longest <= (1 if config.epochs < parts else steps_of_epoch(config, images, members))
    for part, shown in found:
        bootstraps = config.seed if config.bagging else None
        assert replace(part, epochs=0, seed=0) == replace(config, epochs=0, seed=0, bootstraps=bootstraps)
        if shown is not None:
            assert len(shown.unique()) == len(shown)
            assert 0 <= int(shown.min()) <= int(shown.max()) < images
    seeds = {part.seed for part, _ in found}
    assert len(seeds) == parts


@given(config=configs, images=st.integers(8, 90), members=st.integers(1, 5))
def test_what_all_members_see_takes_as_many_rows_and_steps(config: FinetuneConfig, images: int, members: int) -> None:
    part = shown_to_all(config, images, members)
    plain = replace(config, bagging=False)
    assert rows_and_steps(part, images, members) == rows_and_steps((plain, None), images, members)
    assert (part[0].mode, part[0].bagging) == ("repeat", False)
    if config.mode != "split":
        assert part[1] is None


def test_images_are_as_many_different_ones_as_there_is_time_for() -> None:
    config = FinetuneConfig(epochs=3, batch_size=20)
    (found, shown), members = shown_to_all(config, 400, 4), 4
    assert shown is not None
    assert (len(shown), found.epochs, found.batch_size) == (300, 1, 5)
    found, shown = shown_to_all(replace(config, epochs=8), 400, members)
    assert shown is not None
    assert (len(shown), found.epochs) == (400, 2)


def test_parts_of_an_epoch_are_of_different_images() -> None:
    found = shared_out(FinetuneConfig(epochs=1, batch_size=10), 4, 400, 2)
    drawn = [shown for _, shown in found]
    assert all(shown is not None and len(shown) == 100 for shown in drawn)
    assert not any(torch.equal(drawn[0], other) for other in drawn[1:])
    again = shared_out(FinetuneConfig(epochs=1, batch_size=10), 4, 400, 2)
    assert all(torch.equal(a, b) for a, (_, b) in zip(drawn, again, strict=True))


@pytest.mark.parametrize(
    ("epochs", "share", "expected"),
    [(0, 0.5, 0), (1, 1.0, 0), (2, 0.25, 1), (3, 0.25, 1), (4, 0.25, 1), (12, 0.25, 3), (4, 1.0, 3), (10, 0.0, 0)],
)
def test_the_last_epoch_is_left_to_the_finished_masks(epochs: int, share: float, expected: int) -> None:
    assert epochs_of_search(FinetuneConfig(epochs=epochs), share) == expected


def test_bootstraps_last_and_come_in_another_order() -> None:
    config = FinetuneConfig(seed=3, bagging=True, mode="independent", batch_size=30)
    first, later = (order_of_epoch(reseeded(config, number), 30, 2, 0) for number in (0, 5))
    assert torch.equal(first.sort().values, later.sort().values)
    assert not torch.equal(first, later)
    plain = replace(config, bagging=False)
    assert reseeded(plain, 0) == plain
    assert reseeded(plain, 5).seed != 3


def test_parts_of_an_epoch_have_the_same_bootstraps() -> None:
    (first, shown), (second, again) = shared_out(FinetuneConfig(epochs=1, batch_size=10, bagging=True), 2, 40, 2)
    assert shown is not None
    assert again is not None
    assert torch.equal(shown, again)
    assert (first.bootstrap_seed, first.seed != second.seed) == (second.bootstrap_seed, True)
