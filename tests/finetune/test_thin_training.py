"""The training loop with thin members comes to what it comes to with masked ones."""

import pytest
import torch

from subnet_search.data import ArrayDataset
from subnet_search.finetune import FinetuneConfig, finetune

CONFIG = FinetuneConfig(epochs=2, batch_size=12, augment="crop-flip", distill=0.3, weight_decay=0.1, precision="fp32")


def trained(small, thin, config=CONFIG, **arguments):
    ensemble = small.ensemble(3)
    history = finetune(ensemble, small.data, config, teacher=small.network, thin=thin, **arguments)
    return ensemble, history


@pytest.mark.parametrize("mode", ["split", "repeat", "independent"])
def test_losses_and_weights_are_those_of_masked_members(small, mode):
    config = FinetuneConfig(epochs=2, batch_size=12, mode=mode, weight_decay=0.1, precision="fp32")
    (masked, wanted), (thin, got) = trained(small, False, config), trained(small, True, config)
    assert got.losses == pytest.approx(wanted.losses, rel=1e-4)
    assert got.samples_seen == wanted.samples_seen
    for (name, ours), theirs in zip(thin.named_parameters(), masked.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
    assert thin.masks.digest() == masked.masks.digest()
    assert not thin.training


def test_thin_is_what_members_get_that_keep_little(small, monkeypatch):
    masked_rows = []
    ensemble = small.ensemble(3)
    forward = type(ensemble).forward
    monkeypatch.setattr(type(ensemble), "forward", lambda *a, **n: masked_rows.append(1) or forward(*a, **n))
    finetune(ensemble, small.data, CONFIG, teacher=small.network)
    # what lies channels-last is tried; then the comparison, with rows of their own and the same for all
    assert len(masked_rows) == 1 + 2
    whole = small.ensemble(3, full=True)
    finetune(whole, small.data, CONFIG, teacher=small.network)
    assert len(masked_rows) == 3 + 1 + 6


class KilledError(Exception):
    pass


def test_a_killed_run_ends_as_an_undisturbed_one(small, tmp_path):
    left = [4]  # an epoch has 3 steps

    class Killing(ArrayDataset):
        def __getitems__(self, indices):
            left[0] -= 1
            if left[0] < 0:
                raise KilledError
            return super().__getitems__(indices)

    path = tmp_path / "state.pt"
    with pytest.raises(KilledError):
        finetune(small.ensemble(3), Killing(small.data.images, small.data.labels), CONFIG, teacher=small.network, checkpoint=path, thin=True)  # fmt: skip
    (undisturbed, wanted), (resumed, got) = trained(small, True), trained(small, True, checkpoint=path)
    assert got.losses == wanted.losses
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor)
