"""What every system is that the training loop can train and the evaluation can judge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.data.array_dataset import check_images
from subnet_search.ensemble.modes import eval_mode
from subnet_search.ensemble.uncertainty import Uncertainty, uncertainty_of
from subnet_search.errors import SubnetSearchError


class Predictor(nn.Module, ABC):
    """K members that classify the same images: an ensemble of subnetworks, of networks, or of random passes.

    Its answers in eval mode depend on each image alone: not on the size of the batch, its order, or earlier calls.

    Attributes:
        members: Number of answers K for each image.
        inputs: Images that one row of the network takes in at once; 1 but for MIMO, where K is a multiple of it.
        card: What the network expects and means.
        shareable: Whether several processes can share the rows of a training step: what is computed of a row depends on
            the other rows through batch normalisation alone.
    """

    members: int
    inputs: int = 1
    shareable: bool = True
    card: Card

    @abstractmethod
    def forward(self, x: Tensor, repeat: bool = True) -> Tensor:
        """Computes the logits of all members.

        Args:
            x: Prepared input `[batch, *input_shape]` that every member sees, or, with `repeat` false, member-major
                rows `[member * batch, *input_shape]`, each seen by its own member only.
            repeat: Whether x is to be repeated for the members.

        Returns:
            Logits `[member, batch, class]`.

        Raises:
            SubnetSearchError: where the rows cannot be shared out to the members.
        """

    @abstractmethod
    def macs(self) -> int:
        """Returns the multiply-accumulates of all members together for one image."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Returns what, beside weights and data, decides its course in training: plain JSON values."""

    @torch.no_grad()
    def predict(self, images: Tensor) -> Uncertainty:
        """Classifies raw images and tells how far the answer can be trusted.

        Args:
            images: `[batch, *card.input_shape]`, uint8 or floating point in [0, 1]; any batch size. Prepared, they get
                the type of the network's parameters.

        Returns:
            Mean probabilities with total, aleatoric and epistemic uncertainty in nats, and the energy; see `Uncertainty`.

        Raises:
            SubnetSearchError: where there are no images, their shape is not the card's, or they hold NaN, infinity or
                values outside [0, 1].
        """
        if len(images) == 0:
            raise SubnetSearchError("predict: got no images, expected at least one")
        check_images(images, "predict")
        with eval_mode(self):
            like = next(self.parameters())  # a network may be in float64, or in bfloat16
            logits = self(self.card.prepare(images.to(like.device)).to(like.dtype))
        return uncertainty_of(logits)

    def _rows(self, x: Tensor, repeat: bool) -> Tensor:
        """Gives the member-major rows of what `forward` was called with."""
        if repeat:
            return x.repeat(self.members, *([1] * (x.ndim - 1))) if self.members > 1 else x
        if len(x) % self.members:
            raise SubnetSearchError(
                f"got {len(x)} member-major rows, expected a multiple of the {self.members} members; pass whole batches or repeat=True"
            )
        return x
