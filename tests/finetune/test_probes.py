import pytest
import torch

from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig
from subnet_search.finetune.probes import probes_of

ROWS = torch.arange(3 * 2 * 9 * 8.0).view(3, 2, 9, 8)
TARGETS = torch.eye(4)[:3]


def test_the_images_of_the_step_are_what_they_are() -> None:
    rows, targets = probes_of(ROWS, TARGETS, "images")
    assert rows is ROWS
    assert targets is TARGETS


def test_mixed_images_have_targets_that_are_mixed_alike() -> None:
    torch.manual_seed(0)
    pixels = TARGETS.view(3, 4, 1, 1)  # an image of its own target
    rows, targets = probes_of(pixels, TARGETS, "mixed")
    assert torch.equal(rows.view(3, 4), targets)
    torch.testing.assert_close(targets.sum(1), torch.ones(3))
    assert not torch.equal(targets, TARGETS)


def test_noise_is_of_each_image_s_own_strength_and_leaves_what_there_is_to_answer() -> None:
    torch.manual_seed(0)
    rows, targets = probes_of(torch.zeros(400, 3, 20, 20), torch.ones(400, 2), "noisy")
    strengths = rows.flatten(1).std(dim=1)
    assert torch.equal(targets, torch.ones(400, 2))
    assert (float(strengths.min()) < 0.05, float(strengths.max()) > 0.95, float(strengths.max()) < 1.1) == (True,) * 3
    assert float(strengths.mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("shape", [(3, 2, 9, 8), (3, 2, 9, 3), (3, 2, 72), (3, 72)])
def test_jumbled_images_have_the_same_pixels_elsewhere_and_no_class(shape) -> None:
    torch.manual_seed(1)
    channels = 2 if len(shape) > 2 else 1
    rows, targets = probes_of(ROWS.flatten()[: torch.Size(shape).numel()].view(shape), TARGETS, "jumbled")
    before = ROWS.flatten()[: torch.Size(shape).numel()].view(3, channels, -1)
    assert rows.shape == shape
    assert torch.equal(rows.reshape(3, channels, -1).sort().values, before.sort().values)
    assert not torch.equal(rows.reshape(3, channels, -1), before)
    assert torch.equal(targets, torch.full((3, 4), 0.25))


@pytest.mark.parametrize(("shape", "axes"), [((3, 72), (1,)), ((3, 2), (1,)), ((3, 2, 9, 8), (2, 3))])
def test_strips_never_stay_in_the_order_that_they_are_in(shape, axes) -> None:
    for axis in axes:
        # values that tell the place along one axis alone
        rows = torch.arange(shape[axis]).float().view(-1, *[1] * (len(shape) - 1 - axis)).expand(shape)
        for seed in range(100):  # one draw of four strips in 24 leaves them where they are
            torch.manual_seed(seed)
            assert not torch.equal(probes_of(rows, TARGETS, "jumbled")[0], rows)


def test_an_axis_of_size_1_stays_as_it_is() -> None:
    torch.manual_seed(0)
    column = ROWS[:, :, :, :1]
    rows, targets = probes_of(column, TARGETS, "jumbled")
    assert rows.shape == column.shape
    assert not torch.equal(rows, column)
    single = torch.ones(3, 1)
    rows, targets = probes_of(single, TARGETS, "jumbled")
    assert torch.equal(rows, single)
    assert torch.equal(targets, torch.full((3, 4), 0.25))


def test_the_seed_decides() -> None:
    for kind in ("mixed", "noisy", "jumbled"):
        found = []
        for _ in range(2):
            torch.manual_seed(3)
            found.append(probes_of(ROWS, TARGETS, kind))
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_there_is_no_other_kind() -> None:
    with pytest.raises(SubnetSearchError, match="probes is 'blurred', expected one of images, mixed"):
        FinetuneConfig(mode="repeat", probes="blurred")  # type: ignore[arg-type]
