"""The likelihood of a mask set's ensemble without training, fast enough to compare hundreds of them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from subnet_search.data import Augmentation, augment, batches
from subnet_search.data.batches import length
from subnet_search.device import Precision, autocast
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.ensemble.plain_layers import layer_ranks
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.classification import negative_log_likelihood
from subnet_search.groups import SlicedNetwork
from subnet_search.masks import MaskSet
from subnet_search.measure.resume import Outline, Snapshot, outline, resumed
from subnet_search.packed.member import slice_member

REMEMBERED = 4096  # answers of members, about 40 KB each
SNAPSHOT_BYTES = 2**30  # of a member; where a larger one would be needed, the whole network runs
AGREEMENT = 1e-4  # largest difference of logits between a resumed and a whole pass, relative to the largest logit


class MaskMeasure:
    """Measures mask sets: the NLL of the ensemble's mean probabilities, after its normalisation was recalibrated.

    All images are training images: one part gives the statistics of the normalisation, another one, kept apart from it,
    the likelihood. Images of validation and test play no part. Trained networks know their training images by heart,
    so that both parts are augmented as in the fine-tuning.

    Only what a mask set changes is computed: a member whose mask was measured before has its answers kept, and of one
    whose mask is another the part of the network before the first changed group is skipped, where that was run last.
    Members run without the channels that they do not keep. So a local search should go through the groups in order.

    Args:
        ensemble: The network with normalisation of each member's own; its masks are changed, its weights are not.
        dataset: Training images (raw) and labels.
        samples: Images whose likelihood is measured; as many as there are beside those for the statistics.
        calibration: Images that give the statistics; at most a third of the data.
        augment: Random changes of the images, drawn once.
        seed: Seed of the images and their changes.
        precision: Arithmetic of the forward passes.

    Raises:
        SubnetSearchError: where members do not have a normalisation of their own, or there are fewer than 3 images.
    """

    def __init__(
        self,
        ensemble: SubnetEnsemble,
        dataset: Dataset[tuple[Tensor, int]],
        *,
        samples: int = 512,
        calibration: int = 256,
        augment: Augmentation = "none",
        seed: int = 0,
        precision: Precision = "auto",
    ) -> None:
        if ensemble.config.norm != "member":
            raise SubnetSearchError("masks are measured with a normalisation of each member's own, got norm=shared")
        if length(dataset) < 3:
            raise SubnetSearchError(f"got {length(dataset)} images to measure masks on, expected at least 3")
        self.ensemble, self.dataset, self.augment = ensemble, dataset, augment
        self.samples, self.calibration, self.seed, self.precision = samples, calibration, seed, precision
        self._loaded: _Images | None = None
        self._runners: list[_Member] = []
        self._answers: OrderedDict[tuple[int, str], Tensor] = OrderedDict()

    def __call__(self, masks: MaskSet) -> float:
        """Returns the NLL in nats of the mean probabilities on the measured images, lower is better."""
        probabilities = self.member_probabilities(masks)
        assert self._loaded is not None
        return negative_log_likelihood(probabilities.mean(dim=0), self._loaded.labels)

    def member_probabilities(self, masks: MaskSet) -> Tensor:
        """Returns what each member says of the measured images: float32 `[member, sample, class]` on the CPU."""
        if self._loaded is None:
            self._prepare()
        found = []
        for member in range(self.ensemble.members):
            key = (member, _digest(masks, member))
            if key not in self._answers:
                self._answers[key] = self._run(member, masks)
                if len(self._answers) > REMEMBERED:
                    self._answers.popitem(last=False)
            self._answers.move_to_end(key)
            found.append(self._answers[key])
        return torch.stack(found)

    def _prepare(self) -> None:
        """Reads the images."""
        size = length(self.dataset)
        calibration = max(2, min(self.calibration, size // 3))  # of one image there is no variance
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(size, generator=generator)[: calibration + self.samples]
        rows, labels = next(iter(batches(self.dataset, len(order), order)))
        changed = augment(rows, self.augment, generator)
        device = next(self.ensemble.parameters()).device
        parts = [self.ensemble.card.prepare(part.to(device)) for part in changed.split(calibration)]
        self._loaded = _Images(parts[0], tuple(parts[1:]), labels[calibration:])
        ranks = layer_ranks(self.ensemble)
        self._runners = [_Member(self.ensemble, member, ranks) for member in range(self.ensemble.members)]

    def _run(self, member: int, masks: MaskSet) -> Tensor:
        """Runs one member."""
        assert self._loaded is not None
        device = next(self.ensemble.parameters()).device
        self.ensemble.set_masks(masks)
        with torch.no_grad(), autocast(device, self.precision):
            logits = self._runners[member].run(self._loaded, masks)
        return logits.float().softmax(dim=1).cpu()


@dataclass(frozen=True)
class _Images:
    """Prepared images: those for the statistics, and batches of those to be measured with their labels."""

    calibration: Tensor
    measured: tuple[Tensor, ...]
    labels: Tensor


@dataclass(frozen=True)
class _Kept:
    """Snapshots before a group, for the images of the statistics and each batch of measured ones."""

    group: str
    masks: Mapping[str, Tensor]
    out: tuple[str, ...]
    snapshots: tuple[Snapshot, ...]


class _Member:
    """Runs one member with changing masks, each time from the first group that has changed."""

    def __init__(self, ensemble: SubnetEnsemble, member: int, ranks: Mapping[str, int]) -> None:
        self.ensemble, self.member, self.ranks = ensemble, member, ranks
        self.plans: tuple[Outline, Outline] | None = None
        self.places: dict[str, tuple[int, int]] = {}
        self.last: tuple[Mapping[str, Tensor], tuple[str, ...]] | None = None
        self.kept: _Kept | None = None

    def run(self, images: _Images, masks: MaskSet) -> Tensor:
        """Returns the logits `[sample, class]` of the measured images, after new statistics."""
        own = {name: mask[self.member] for name, mask in masks.masks.items()}
        out = masks.left_out(self.member)
        network = slice_member(self.ensemble, self.member, own, self.ranks)
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        if self.plans is None:
            self._outline(network, norms, images)
        assert self.plans is not None
        group = self._first_changed(own, out)
        start = self.kept if self.kept is not None and self._holds(self.kept, own, out) else None
        keep = group if group is not None and (start is None or self._before(start.group, group)) else None
        found: list[Tensor] = []
        snapshots: list[Snapshot | None] = []
        for index, x in enumerate((images.calibration, *images.measured)):
            which = int(index > 0)
            _set(norms, training=index == 0)
            answer, snapshot = resumed(
                network,
                x,
                self.plans[which],
                None if start is None else start.snapshots[index],
                None if keep is None else self.places[keep][which],
            )
            found.append(answer)
            snapshots.append(snapshot)
        taken = tuple(snapshot for snapshot in snapshots if snapshot is not None)
        if keep is not None and sum(s.bytes for s in taken) <= SNAPSHOT_BYTES:
            self.kept = _Kept(keep, own, out, taken)
        self.last = (own, out)
        return torch.cat(found[1:])

    def _outline(self, network: SlicedNetwork, norms: list[_BatchNorm], images: _Images) -> None:
        """Finds out what comes before each group, and whether a pass can be resumed at all."""
        plans = []
        for training, x in ((True, images.calibration), (False, images.measured[0])):
            _set(norms, training)
            plans.append(outline(network, x[:2]))
        self.plans = (plans[0], plans[1])
        train, test = (self._places(plan) for plan in plans)
        self.places = {name: (train[name], test[name]) for name in train}
        order = self.ensemble.graph.order
        again = len(set(order)) < len(order)  # a norm that runs twice needs both passes for its statistics
        if again or not self._resumes(network, images.measured[0][:2]):
            self.places = dict.fromkeys(self.places, (0, 0))

    def _places(self, plan: Outline) -> dict[str, int]:
        """Group → how many operations come before the first that its mask changes."""
        graph = self.ensemble.graph
        places = {
            group.name: min(plan.starts.get(f"network.{part.module}", 0) for part in group.slices)
            for group in graph.groups
        }
        for call in graph.resizes:  # a shortcut may be padded before the layers of its block are run
            for name in {label[0] for labels in call.labels for label in labels if label is not None}:
                places[name] = min(places[name], plan.resizes[call.number])
        return places

    def _resumes(self, network: nn.Module, x: Tensor) -> bool:
        """Whether a pass that starts in the middle gives what a whole one gives, from each group's place."""
        assert self.plans is not None
        whole, _ = resumed(network, x, self.plans[1])
        for _, place in self.places.values():
            try:
                _, snapshot = resumed(network, x, self.plans[1], None, place)
                answer, _ = resumed(network, x, self.plans[1], snapshot)
            except Exception:  # whatever a user's forward makes of empty tensors
                return False
            if not bool((answer - whole).abs().max() <= AGREEMENT * whole.abs().max()):
                return False
        return True

    def _first_changed(self, own: Mapping[str, Tensor], out: tuple[str, ...]) -> str | None:
        """The first group that differs from the masks that ran last; None where there is no earlier part to keep."""
        if self.last is None or self.last[1] != out:
            return None
        changed = [name for name, mask in own.items() if not torch.equal(mask, self.last[0][name])]
        first = min(changed, key=self.places.__getitem__, default=None)
        return None if first is None or self.places[first][1] == 0 else first

    def _holds(self, kept: _Kept, own: Mapping[str, Tensor], out: tuple[str, ...]) -> bool:
        """Whether nothing has changed before the place of a snapshot."""
        earlier = (name for name in own if self._before(name, kept.group))
        return kept.out == out and all(torch.equal(own[name], kept.masks[name]) for name in earlier)

    def _before(self, one: str, other: str) -> bool:
        return self.places[one][1] < self.places[other][1]


def _set(norms: list[_BatchNorm], training: bool) -> None:
    """Lets the norms take the statistics of the next pass, or use those that they have."""
    for norm in norms:
        norm.train(training)
        norm.momentum = None  # the mean, where a layer runs twice in a pass
        if training:
            norm.reset_running_stats()


def _digest(masks: MaskSet, member: int) -> str:
    """Equal exactly where the member's channels and branches are equal."""
    sha = hashlib.sha256()
    for name in sorted(masks.masks):
        sha.update(f"{name}:".encode() + masks.masks[name][member].to(torch.uint8).numpy().tobytes())
    sha.update(" ".join(sorted(masks.left_out(member))).encode())
    return sha.hexdigest()
