import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from subnet_search.data import ArrayDataset
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig, finetune
from subnet_search.groups import find_groups

CONFIG = FinetuneConfig(epochs=3, batch_size=12, augment="crop-flip", distill=0.3, precision="fp32")


class KilledError(Exception):
    pass


class Killing(ArrayDataset):
    """Data that end the process, as it were, at a given batch."""

    def __getitems__(self, indices):
        left = self.__dict__.setdefault("left", [7])  # an epoch has 3 steps: the second step of the third epoch
        left[0] -= 1
        if left[0] < 0:
            raise KilledError
        return super().__getitems__(indices)


def equal(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def killed(small, tmp_path):
    """A checkpoint file of two finished epochs out of three."""
    path = tmp_path / "deep" / "state.pt"
    with pytest.raises(KilledError):
        finetune(small.ensemble(3), Killing(small.data.images, small.data.labels), CONFIG, teacher=small.network, checkpoint=path)  # fmt: skip
    assert path.exists()
    return path


def test_a_killed_run_ends_as_an_undisturbed_one(small, killed):
    undisturbed, resumed = small.ensemble(3), small.ensemble(3)
    wanted = finetune(undisturbed, small.data, CONFIG, teacher=small.network)
    reads = []

    class Counting(ArrayDataset):
        def __getitems__(self, indices):
            reads.append(len(indices))
            return super().__getitems__(indices)

    got = finetune(resumed, Counting(small.data.images, small.data.labels), CONFIG, teacher=small.network, checkpoint=killed)  # fmt: skip
    assert len(reads) == 3  # the last epoch alone
    assert got.losses == wanted.losses
    assert got.samples_seen == wanted.samples_seen
    assert equal(resumed.state_dict(), undisturbed.state_dict())
    assert not resumed.training


def test_the_ensemble_that_was_being_trained_can_go_on_too(small, tmp_path):
    ensemble, path = small.ensemble(3), tmp_path / "state.pt"
    with pytest.raises(KilledError):
        finetune(ensemble, Killing(small.data.images, small.data.labels), CONFIG, teacher=small.network, checkpoint=path)  # fmt: skip
    finetune(ensemble, small.data, CONFIG, teacher=small.network, checkpoint=path)
    undisturbed = small.ensemble(3)
    finetune(undisturbed, small.data, CONFIG, teacher=small.network)
    assert equal(ensemble.state_dict(), undisturbed.state_dict())


def test_a_finished_run_is_read_back(small, tmp_path):
    path, trained, read = tmp_path / "state.pt", small.ensemble(3), small.ensemble(3)
    first = finetune(trained, small.data, CONFIG, teacher=small.network, checkpoint=path)
    content = path.read_bytes()
    again = finetune(read, small.data, CONFIG, teacher=small.network, checkpoint=path)
    assert again == first
    assert equal(read.state_dict(), trained.state_dict())
    assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.pt"]  # no temporary file is left


def refused(small, path, match, ensemble=None, config=CONFIG, data=None):
    """The run is refused; file and ensemble are as before."""
    ensemble = ensemble or small.ensemble(3)
    before, content = {n: t.clone() for n, t in ensemble.state_dict().items()}, path.read_bytes()
    with pytest.raises(SubnetSearchError, match=match):
        finetune(ensemble, data or small.data, config, teacher=small.network, checkpoint=path)
    assert equal(ensemble.state_dict(), before)
    assert path.read_bytes() == content


def test_a_checkpoint_of_another_run_is_refused(small, killed):
    other = "belongs to a run with another network, other masks, settings or number of images"
    refused(small, killed, other, config=replace(CONFIG, learning_rate=0.01))
    refused(small, killed, other, config=replace(CONFIG, seed=1))
    refused(small, killed, other, ensemble=small.ensemble(3, full=True))
    refused(small, killed, other, ensemble=small.ensemble(2))
    refused(small, killed, other, data=small.data.subset(range(39)))


def test_a_checkpoint_of_another_network_is_refused_though_the_masks_are_the_same(small, killed):
    small.network.conv1 = nn.Conv2d(2, 6, 5, padding=2, bias=False)
    graph = find_groups(small.network, torch.zeros(1, 2, 6, 6))
    masks = small.ensemble(3).masks
    refused(small, killed, "another network", ensemble=SubnetEnsemble(small.network, graph, masks, small.ensemble(3).card))  # fmt: skip


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "bytes", "zeros", "one bit"])
def test_a_damaged_checkpoint_is_refused(small, killed, damage):
    content = killed.read_bytes()
    middle = len(content) // 3
    # torch.load does not notice another bit in a tensor
    place = content.index(torch.load(killed)["ensemble"]["network.fc.layer.weight"].numpy().tobytes())
    killed.write_bytes(
        {
            "truncated": content[:middle],
            "empty": b"",
            "text": b"no checkpoint at all",
            "bytes": bytes(range(128, 256)),
            "zeros": content[:50] + bytes(400) + content[450:],
            "one bit": content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :],
        }[damage]
    )
    refused(
        small, killed, r"state.pt cannot be read as one \(.*\), it is damaged; delete it to begin the fine-tuning anew"
    )


@pytest.mark.parametrize("content", [torch.ones(2), [1, 2], {"fingerprint": "0"}])
def test_a_file_with_something_else_in_it_is_refused(small, tmp_path, content):
    path = tmp_path / "state.pt"
    torch.save(content, path)
    refused(small, path, "belongs to a run with another network")


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_pickles_are_not_executed(small, tmp_path, capsys):
    path = tmp_path / "state.pt"
    torch.save({"fingerprint": Evil()}, path)
    refused(small, path, "cannot be read")
    assert capsys.readouterr().out == ""


def test_dropout_draws_from_the_seed_and_a_killed_run_drops_the_same(small, tmp_path):
    network, path = copy.deepcopy(small.network), tmp_path / "state.pt"
    network.fc = nn.Sequential(nn.Dropout(0.5), network.fc)
    dropping = replace(small, network=network, graph=find_groups(network.eval(), torch.zeros(1, 2, 6, 6)))
    config = replace(CONFIG, distill=0.0)
    first, again, resumed, other = (dropping.ensemble(3) for _ in range(4))
    finetune(first, small.data, config)
    torch.rand(5)  # what was drawn before is of no account
    state = torch.get_rng_state()
    finetune(again, small.data, config)
    assert torch.equal(torch.get_rng_state(), state)
    assert equal(again.state_dict(), first.state_dict())
    with pytest.raises(KilledError):
        finetune(dropping.ensemble(3), Killing(small.data.images, small.data.labels), config, checkpoint=path)
    finetune(resumed, small.data, config, checkpoint=path)
    assert equal(resumed.state_dict(), first.state_dict())
    finetune(other, small.data, replace(config, seed=1))
    assert not equal(other.state_dict(), first.state_dict())


def test_a_norm_that_gets_a_single_value_is_explained(small):
    network = copy.deepcopy(small.network)
    network.fc = nn.Sequential(network.fc, nn.BatchNorm1d(5))
    narrow = replace(small, network=network, graph=find_groups(network.eval(), torch.zeros(1, 2, 6, 6)))
    with pytest.raises(SubnetSearchError, match=r"one value per channel.*1 rows in a step; raise finetune.batch_size"):
        finetune(narrow.ensemble(3), small.data, replace(CONFIG, distill=0.0, batch_size=3))
