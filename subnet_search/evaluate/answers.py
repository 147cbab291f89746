"""What a network said about each sample, in as little as a report needs: some 50 bytes a sample, however many classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from subnet_search.data.array_dataset import UNLABELLED
from subnet_search.ensemble.uncertainty import decompose
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.outputs import Outputs

TOP = 3
"""How many of the most probable classes are kept."""


@dataclass(frozen=True)
class Answers:
    """The averaged prediction for each sample of a set, its doubt, and the members' votes.

    Attributes:
        labels: int32 `[sample]`; −1 where the set has no labels.
        truth: Mean probability of the label, float32 `[sample]` in [0, 1]; 0 where there is none.
        classes: The most probable classes, the most probable first, int32 `[sample, rank]`.
        probabilities: Their mean probabilities, float32 `[sample, rank]`.
        votes: The most probable class of each member, int32 `[member, sample]`.
        aleatoric: Expected entropy in nats, float32 `[sample]`.
        epistemic: Mutual information in nats, float32 `[sample]`; 0 of a single network.

    Raises:
        SubnetSearchError: where the shapes do not belong together.
    """

    labels: Tensor
    truth: Tensor
    classes: Tensor
    probabilities: Tensor
    votes: Tensor
    aleatoric: Tensor
    epistemic: Tensor

    def __post_init__(self) -> None:
        shapes = {field.name: tuple(getattr(self, field.name).shape) for field in fields(self)}
        samples = shapes["labels"]
        same = all(shapes[name] == samples for name in ("truth", "aleatoric", "epistemic"))
        if not (len(samples) == 1 and same and shapes["classes"] == shapes["probabilities"]) or (
            shapes["classes"][:1] != samples or len(shapes["classes"]) != 2 or shapes["votes"][1:] != samples
        ):
            raise SubnetSearchError(f"answers: shapes {shapes} do not belong together, expected those of one set")

    @property
    def confidence(self) -> Tensor:
        """Probability of the predicted class, float32 `[sample]`."""
        return self.probabilities[:, 0]

    @property
    def total(self) -> Tensor:
        """Predictive entropy in nats, float32 `[sample]`: all of the doubt."""
        return self.aleatoric + self.epistemic

    @property
    def errors(self) -> Tensor:
        """Whether the averaged prediction is wrong, bool `[sample]`."""
        return self.classes[:, 0] != self.labels

    @property
    def member_errors(self) -> Tensor:
        """Whether each member alone is wrong, bool `[member, sample]`."""
        return self.votes != self.labels

    def tensors(self) -> dict[str, Tensor]:
        """Returns the parts by name, from which `Answers` makes the same again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def answers_of(outputs: Outputs) -> Answers:
    """Sums up what the members said.

    Args:
        outputs: Probabilities of all classes, and labels.

    Returns:
        A few numbers for each sample, on the CPU.
    """
    parts = decompose(outputs.member_probabilities)
    ranked = parts.probabilities.topk(min(TOP, parts.probabilities.shape[1]), dim=1)
    best = parts.probabilities.argmax(dim=1)  # of equal ones the first, as for the accuracy; topk promises no order
    classes, probabilities = ranked.indices.clone(), ranked.values
    place = (classes == best[:, None]).int().argmax(dim=1)
    classes.scatter_(1, place[:, None], classes[:, :1].clone())
    classes[:, 0] = best
    labelled = outputs.labels != UNLABELLED
    truth = parts.probabilities.gather(1, outputs.labels.clamp(min=0)[:, None])[:, 0]
    return Answers(
        labels=outputs.labels.int(),
        truth=torch.where(labelled, truth, 0.0).float(),
        classes=classes.int(),
        probabilities=probabilities.float(),
        votes=outputs.member_probabilities.argmax(dim=2).int(),
        aleatoric=parts.aleatoric.float(),
        epistemic=parts.epistemic.float(),
    )


def from_tensors(tensors: Mapping[str, Tensor]) -> Answers:
    """Makes answers of what `Answers.tensors` returned.

    Raises:
        SubnetSearchError: where parts are missing or do not belong together.
    """
    names = {field.name for field in fields(Answers)}
    if set(tensors) != names:
        raise SubnetSearchError(f"answers: found the parts {sorted(tensors)}, expected {sorted(names)}")
    return Answers(**tensors)
