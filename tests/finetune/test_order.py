import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig, order_of_epoch, steps_of_epoch

sizes = {"images": st.integers(8, 60), "members": st.integers(1, 8), "batch": st.integers(1, 70), "epoch": st.integers(0, 3)}  # fmt: skip
few = settings(max_examples=40, deadline=None, derandomize=True)


@few
@given(**sizes, bagging=st.booleans(), mode=st.sampled_from(["split", "repeat"]))
def test_an_order_has_the_promised_shape(images, members, batch, epoch, bagging, mode):
    config = FinetuneConfig(batch_size=batch, mode=mode, bagging=bagging)
    order = order_of_epoch(config, images, members, epoch)
    steps, of, rows = order.shape
    assert order.dtype == torch.int64
    assert steps == steps_of_epoch(config, images, members) >= 1
    assert of == members
    assert rows >= 1
    assert rows * (members if mode == "split" else 1) <= max(batch, members)
    assert 0 <= int(order.min()) <= int(order.max()) < images
    share = images // members if mode == "split" else images
    assert 0 <= share - steps * rows < rows  # less than a whole step is left out


@few
@given(**sizes)
def test_split_deals_an_image_to_one_member_at_most(images, members, batch, epoch):
    order = order_of_epoch(FinetuneConfig(batch_size=batch), images, members, epoch).flatten()
    assert len(order.unique()) == len(order)


@few
@given(**sizes)
def test_repeat_shows_all_members_the_same(images, members, batch, epoch):
    order = order_of_epoch(FinetuneConfig(batch_size=batch, mode="repeat"), images, members, epoch)
    assert (order == order[:, :1]).all()
    assert len(order[:, 0].unique()) == order[:, 0].numel()


def test_split_that_divides_evenly_deals_out_everything():
    order = order_of_epoch(FinetuneConfig(batch_size=8), 48, 4, 0)
    assert order.shape == (6, 4, 2)
    assert torch.equal(order.flatten().sort().values, torch.arange(48))


def test_split_deals_a_member_other_images_in_another_epoch():
    config = FinetuneConfig(batch_size=8)
    seen = [set(order_of_epoch(config, 48, 4, epoch)[:, 0].flatten().tolist()) for epoch in range(40)]
    assert seen[0] != seen[1]
    assert set().union(*seen) == set(range(48))


@pytest.mark.parametrize("mode", ["split", "repeat"])
def test_a_bootstrap_stays_the_same_over_the_epochs(mode):
    config = FinetuneConfig(batch_size=6, mode=mode, bagging=True)
    for member in range(3):
        orders = [order_of_epoch(config, 30, 3, epoch)[:, member].flatten() for epoch in range(60)]
        pool = torch.cat(orders).unique()
        assert 12 <= len(pool) <= 25  # of 30 draws about 63 % are different
        if mode == "repeat":
            assert all(torch.equal(o.sort().values, orders[0].sort().values) for o in orders)
        assert not torch.equal(orders[0], orders[1])
    pools = [order_of_epoch(config, 30, 3, 0)[:, member].flatten().sort().values for member in range(3)]
    assert not torch.equal(pools[0], pools[1])


def test_seed_and_epoch_alone_decide():
    config = FinetuneConfig(batch_size=8, seed=3)
    order = order_of_epoch(config, 40, 4, 2)
    torch.manual_seed(1)
    assert torch.equal(order, order_of_epoch(config, 40, 4, 2))
    assert not torch.equal(order, order_of_epoch(config, 40, 4, 1))
    assert not torch.equal(order, order_of_epoch(FinetuneConfig(batch_size=8, seed=4), 40, 4, 2))


def test_a_batch_larger_than_the_data_is_one_step():
    assert order_of_epoch(FinetuneConfig(batch_size=512), 10, 3, 0).shape == (1, 3, 3)
    assert order_of_epoch(FinetuneConfig(batch_size=512, mode="repeat"), 10, 3, 0).shape == (1, 3, 10)


def test_images_that_cannot_be_split_are_refused():
    with pytest.raises(SubnetSearchError, match="3 training images cannot be split over 4 members"):
        steps_of_epoch(FinetuneConfig(), 3, 4)
    assert steps_of_epoch(FinetuneConfig(mode="repeat"), 3, 4) == 1


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"mode": "deal"}, "finetune.mode is 'deal', expected one of split, repeat"),
        ({"augment": "cutout"}, "finetune.augment is 'cutout', expected one of none"),
        ({"precision": "fp16"}, "finetune.precision is 'fp16'"),
        ({"epochs": -1}, "finetune.epochs is -1"),
        ({"batch_size": 0}, "finetune.batch_size is 0"),
        ({"warmup": 1.0}, "finetune.warmup is 1.0"),
        ({"distill": 1.5}, "finetune.distill is 1.5"),
        ({"learning_rate": float("nan")}, "finetune.learning_rate is nan"),
        ({"momentum": 1.0}, "finetune.momentum is 1.0"),
        ({"weight_decay": -1e-4}, "finetune.weight_decay is -0.0001"),
        ({"decorrelate": 1.0}, "decorrelate needs every member's answer to the same images"),
        ({"decorrelate": 1.0, "mode": "repeat", "bagging": True}, "use mode=repeat without bagging"),
    ],
)
def test_errors_of_the_settings(given_settings, message):
    with pytest.raises(SubnetSearchError, match=message):
        FinetuneConfig(**given_settings)
