"""Where masks have to be applied for a masked network to equal the sliced one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from torch import nn

from subnet_search.groups.atoms import Atoms, Holder, is_depthwise
from subnet_search.groups.operation_kinds import PRODUCTS, ZERO_LOSING
from subnet_search.groups.trace import Op


def minimal_sites(atoms: Atoms, atom: int, holders: Iterable[Holder]) -> tuple[list[str], str]:
    """Chooses the layers behind which a channel is masked.

    Every batch norm of the group is a site, as each member has its own there. Of the layers that write the channels
    those are sites without which some layer would read a masked channel as something else than zero: behind a
    convolution whose output goes to a batch norm, or is multiplied with a masked tensor, no mask is needed.

    Args:
        atoms: The network's channels.
        atom: One channel of the group, which stands for the others.
        holders: Where the group's channels are.

    Returns:
        The names of the sites in order of execution, and, where no choice of sites suffices, the reason (otherwise
        empty).
    """
    flow = _Flow(atoms, atom, holders)
    norms = [op.module for _, op in flow.ops if isinstance(op.layer, nn.modules.batchnorm._BatchNorm)]
    writers = [op.module for i, op in flow.ops if isinstance(op.layer, nn.Linear | nn.modules.conv._ConvNd)]
    writers = list(dict.fromkeys(name for name in writers if ("out", name, 0) in flow.held))
    sites = {*norms, *writers}
    failing = flow.nonzero_reader(sites)
    if failing:
        return [], failing
    for name in writers:
        if not flow.nonzero_reader(sites - {name}):
            sites.remove(name)
    return [name for name in dict.fromkeys(op.module for _, op in flow.ops) if name in sites], ""


class _Flow:
    """The operations that one channel passes."""

    def __init__(self, atoms: Atoms, atom: int, holders: Iterable[Holder]) -> None:
        self.atoms = atoms
        self.held: dict[Holder, list[int]] = {}
        for holder in holders:
            self.held[holder] = np.flatnonzero(atoms.atom[atoms.positions(holder)] == atom).tolist()
        touched = {holder[1] for holder in self.held if holder[0] == "result" and isinstance(holder[1], int)}
        readers = {holder[1] for holder in self.held if holder[0] == "in"}
        ops = enumerate(atoms.trace.ops)
        self.ops = [(i, op) for i, op in ops if i in touched or (op.module in readers and op.layer is not None)]
        self.links = {i: self._links(i) for i, _ in self.ops}

    def _links(self, i: int) -> dict[tuple[int, int], list[tuple[int, int]]]:
        """`(result, position)` → the `(operand, position)` that come there, for the positions of this channel."""
        found: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for number in range(len(self.atoms.trace.ops[i].shapes)):
            for position in self.held.get(("result", i, number), ()):
                found[number, position] = []
        for link in self.atoms.maps[i][1] if i in self.atoms.maps else ():
            for position in self.held.get(("result", i, link.result), ()):
                for k in np.flatnonzero(link.target == position).tolist():
                    found[link.result, position].append((link.operand, int(link.source[k])))
        return found

    def nonzero_reader(self, sites: set[str]) -> str:
        """Says which layer reads a masked channel as something else than zero; empty where none does."""
        zero: dict[tuple[int, int, int], bool] = {}
        for i, op in self.ops:
            if isinstance(op.layer, nn.Linear | nn.modules.conv._ConvNd) and not is_depthwise(op.layer):
                source = op.inputs[0]
                if source is not None and ("in", op.module, 0) in self.held:
                    read = self.held.get(("result", *source), [])
                    if not all(zero.get((*source, position), False) for position in read):
                        return f"{op} reads a cut channel as something else than zero"
            for (number, position), origins in self.links[i].items():
                zero[i, number, position] = op.module in sites or self._stays_zero(op, origins, zero)
        return ""

    def _stays_zero(
        self,
        op: Op,
        origins: Sequence[tuple[int, int]],
        zero: dict[tuple[int, int, int], bool],
    ) -> bool:
        def is_zero(operand: int, position: int) -> bool:
            source = op.inputs[operand]
            return source is not None and zero.get((*source, position), False)

        if op.layer is not None and not isinstance(op.layer, nn.PReLU):
            if not is_depthwise(op.layer) or getattr(op.layer, "bias", None) is not None:
                return False
            source = op.inputs[0]
            read = [] if source is None else self.held.get(("result", *source), [])
            return all(is_zero(0, position) for position in read)
        if op.kind in ZERO_LOSING:
            return False
        if op.kind == "Div":
            return any(is_zero(operand, position) for operand, position in origins if operand == 0)
        if op.kind in PRODUCTS:
            return any(is_zero(operand, position) for operand, position in origins)
        # Sums, reductions, moves; a position that nothing comes to is padding.
        return all(is_zero(operand, position) for operand, position in origins)
