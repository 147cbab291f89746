"""What each member keeps of a tensor that the members share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from subnet_search.ensemble.thin_member import Places


class Gather:
    """Reads the members' parts of one tensor, and writes them back.

    Where one axis is cut, as of nearly all tensors, the parts of all members are taken at once: K small operations,
    and K more in the backward pass, would cost as much as a small convolution.

    Args:
        module: The layer of the ensemble's network that holds the tensor.
        attribute: Its name there; it is looked up on each reading, as another tensor may have been put there.
        owned: Whether its first axis is the members'; `parts` do not count that axis.
        parts: `(member, places)` of the members that have a part of it, in order.
    """

    def __init__(
        self, module: nn.Module, attribute: str, owned: bool, parts: Sequence[tuple[int, Places]], device: torch.device
    ) -> None:
        self.module, self.attribute, self.owned = module, attribute, owned
        self.members = [member for member, _ in parts]
        self.places = [[(axis, positions.to(device)) for axis, positions in places] for _, places in parts]
        axes = {axis for places in self.places for axis, _ in places}
        self.axis = axes.pop() if len(axes) == 1 and (not owned or axes == {0}) else None
        self.taken: Tensor | None = None
        if self.axis is not None:
            size = self.tensor().shape[self.axis + owned]
            own = [places[0][1] if places else torch.arange(size, device=device) for places in self.places]
            self.sizes = [len(positions) for positions in own]
            first = [member * size * owned for member in self.members]
            self.positions = torch.cat([positions + start for positions, start in zip(own, first, strict=True)])

    def tensor(self) -> Tensor:
        """Returns the shared tensor."""
        tensor = getattr(self.module, self.attribute)
        assert isinstance(tensor, Tensor)
        return tensor

    def read(self) -> Sequence[Tensor]:
        """Returns the parts of `members`, in order; their gradients go to the shared tensor."""
        tensor = self.tensor()
        if self.axis is not None:
            taken = (tensor.flatten(0, 1) if self.owned else tensor).index_select(self.axis, self.positions)
            self.taken = None if taken.requires_grad else taken  # which would keep the graph of the step
            return torch.split(taken, self.sizes, dim=self.axis)
        rows = tensor.unbind(0) if self.owned else [tensor] * (max(self.members) + 1)
        parts = [rows[member] for member in self.members]
        for number, places in enumerate(self.places):
            for axis, positions in places:
                parts[number] = parts[number].index_select(axis, positions)
        return parts

    def write(self) -> None:
        """Puts parts of running statistics, changed in place since they were read, where they came from."""
        if self.taken is not None:
            tensor = self.tensor()
            (tensor.flatten(0, 1) if self.owned else tensor).index_copy_(0, self.positions, self.taken)
