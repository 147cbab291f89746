import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig, order_of_epoch, steps_of_epoch

sizes = {"images": st.integers(8, 60), "members": st.integers(1, 8), "batch": st.integers(1, 70), "epoch": st.integers(0, 3)}  # fmt: skip
few = settings(max_examples=40, deadline=None, derandomize=True)


@few
@given(**sizes, bagging=st.booleans(), mode=st.sampled_from(["split", "repeat", "independent"]))
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


@few
@given(**sizes)
def test_independent_shows_each_member_all_images_in_an_order_of_its_own(images, members, batch, epoch):
    order = order_of_epoch(FinetuneConfig(batch_size=batch, mode="independent"), images, members, epoch)
    for member in range(members):
        assert len(order[:, member].unique()) == order[:, member].numel() > images - min(batch, images)
    if members > 1 and order[:, 0].numel() > 7:
        assert not torch.equal(order[:, 0], order[:, 1])


@few
@given(
    **sizes,
    inputs=st.integers(1, 4),
    repetition=st.integers(1, 5),
    mode=st.sampled_from(["split", "repeat", "independent"]),
    bagging=st.booleans(),
)
def test_with_repetitions_a_step_holds_each_image_equally_often(
    images, members, batch, epoch, inputs, repetition, mode, bagging
):
    config = FinetuneConfig(
        batch_size=batch, mode=mode, bagging=bagging, batch_repetition=repetition, input_repetition=0.5
    )
    order = order_of_epoch(config, images, members * inputs, epoch, inputs)
    steps, of, rows = order.shape
    assert (steps, of) == (steps_of_epoch(config, images, members * inputs, inputs), members * inputs)
    once = order_of_epoch(
        FinetuneConfig(batch_size=batch, mode=mode, bagging=bagging), images, members * inputs, epoch, inputs
    )
    assert steps >= once.shape[0]  # a pass has as many steps, but for rows that do not divide
    times = min(repetition, once.shape[2])
    assert rows == once.shape[2] // times * times
    by_network = order.unflatten(1, (members, inputs))
    for network in by_network.unbind(1):
        for step in network:
            sorted_rows = step.sort(dim=1).values
            assert (sorted_rows == sorted_rows[:1]).all()  # all inputs see the images of the step
            if not bagging:
                assert (step[0].unique(return_counts=True)[1] == times).all()


def test_with_repetitions_a_pass_has_as_many_steps_and_fewer_images():
    config = FinetuneConfig(batch_size=12, batch_repetition=4)
    order = order_of_epoch(config, 48, 3, 0)
    assert order.shape == (4, 3, 4)
    assert (order == order[:, :, :1]).all()
    assert len(order.unique()) == 12


@pytest.mark.parametrize(("repetition", "common"), [(0.0, 0), (0.25, 5), (0.5, 10), (1.0, 20)])
def test_in_a_share_of_the_rows_all_inputs_see_one_image(repetition, common):
    config = FinetuneConfig(batch_size=60, input_repetition=repetition)
    order = order_of_epoch(config, 300, 9, 0, inputs=3).unflatten(1, (3, 3))  # [step, network, input, row]
    assert order.shape == (5, 3, 3, 20)
    same = (order == order[:, :, :1]).all(dim=2)
    assert same[..., :common].all()
    if common < 20:
        assert not same[..., common:].all(dim=2).any()
    assert not torch.equal(order[0, 0, 0].sort().values, order[0, 1, 0].sort().values)  # networks see others


def test_inputs_are_shuffled_anew_in_each_step_and_epoch():
    config = FinetuneConfig(batch_size=40, mode="repeat")
    epochs = [order_of_epoch(config, 80, 2, epoch, inputs=2) for epoch in (0, 1)]
    places = [[step[1].argsort()[step[0].argsort().argsort()] for step in order] for order in epochs]
    found = [place for order in places for place in order]
    assert all(not torch.equal(one, other) for i, one in enumerate(found) for other in found[:i])


def test_one_input_is_an_ordinary_member():
    config = FinetuneConfig(batch_size=8, input_repetition=0.5)
    plain = order_of_epoch(FinetuneConfig(batch_size=8), 40, 4, 1)
    assert torch.equal(order_of_epoch(config, 40, 4, 1, inputs=1), plain)


def test_split_that_divides_evenly_deals_out_everything():
    order = order_of_epoch(FinetuneConfig(batch_size=8), 48, 4, 0)
    assert order.shape == (6, 4, 2)
    assert torch.equal(order.flatten().sort().values, torch.arange(48))


def test_split_deals_a_member_other_images_in_another_epoch():
    config = FinetuneConfig(batch_size=8)
    seen = [set(order_of_epoch(config, 48, 4, epoch)[:, 0].flatten().tolist()) for epoch in range(40)]
    assert seen[0] != seen[1]
    assert set().union(*seen) == set(range(48))


@pytest.mark.parametrize("mode", ["split", "repeat", "independent"])
def test_a_bootstrap_stays_the_same_over_the_epochs(mode):
    config = FinetuneConfig(batch_size=6, mode=mode, bagging=True)
    for member in range(3):
        orders = [order_of_epoch(config, 30, 3, epoch)[:, member].flatten() for epoch in range(60)]
        pool = torch.cat(orders).unique()
        assert 12 <= len(pool) <= 25  # of 30 draws about 63 % are different
        if mode != "split":
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
        ({"mode": "deal"}, "finetune.mode is 'deal', expected one of split, repeat, independent"),
        ({"augment": "cutout"}, "finetune.augment is 'cutout', expected one of none"),
        ({"precision": "fp16"}, "finetune.precision is 'fp16'"),
        ({"epochs": -1}, "finetune.epochs is -1"),
        ({"batch_size": 0}, "finetune.batch_size is 0"),
        ({"warmup": 1.0}, "finetune.warmup is 1.0"),
        ({"distill": 1.5}, "finetune.distill is 1.5"),
        ({"learning_rate": float("nan")}, "finetune.learning_rate is nan"),
        ({"momentum": 1.0}, "finetune.momentum is 1.0"),
        ({"input_repetition": 1.5}, "finetune.input_repetition is 1.5"),
        ({"batch_repetition": 0}, "finetune.batch_repetition is 0"),
        ({"decorrelate": 1.0, "mode": "independent"}, "use mode=repeat without bagging"),
        ({"weight_decay": -1e-4}, "finetune.weight_decay is -0.0001"),
        ({"decorrelate": 1.0}, "decorrelate needs every member's answer to the same images"),
        ({"decorrelate": 1.0, "mode": "repeat", "bagging": True}, "use mode=repeat without bagging"),
        ({"joint": 0.5}, "finetune.joint needs every member's answer to the same images"),
        ({"learn_probes": 0.5}, "finetune.learn_probes needs every member's answer to the same images"),
        ({"learn_probes": 0.5, "mode": "repeat"}, "learn_probes is 0.5, but .* set finetune.probes to mixed, noisy or"),
        ({"joint": 1.5, "mode": "repeat"}, "finetune.joint is 1.5"),
    ],
)
def test_errors_of_the_settings(given_settings, message):
    with pytest.raises(SubnetSearchError, match=message):
        FinetuneConfig(**given_settings)
