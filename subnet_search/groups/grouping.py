"""Gathers atoms that live in the same places into groups."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from torch import nn

from subnet_search.groups.atoms import Atoms, Holder, is_depthwise
from subnet_search.groups.channel_group import ChannelGroup, LeftWhole, Slice
from subnet_search.groups.operation_kinds import SUMS
from subnet_search.groups.sites import minimal_sites

Footprint = tuple[tuple[Holder, int], ...]


@dataclass(frozen=True)
class Gathered:
    """The groups of a network before they are verified.

    Attributes:
        groups: Candidates, in order of first use.
        left_whole: What cannot be a candidate and why.
        labels: Position number (see `Atoms`) → `(group, channel)`, for candidates.
    """

    groups: tuple[ChannelGroup, ...]
    left_whole: tuple[LeftWhole, ...]
    labels: dict[int, tuple[str, int]]


def gather(atoms: Atoms) -> Gathered:
    """Makes groups of the atoms that live in the same places, so that every channel of a group costs the same.

    Args:
        atoms: The network's channels.

    Returns:
        Candidate groups, and what is left whole.
    """
    writers = [op.module for op in atoms.trace.ops if isinstance(op.layer, nn.Linear | nn.modules.conv._ConvNd)]
    order = {name: rank for rank, name in reversed(list(enumerate(writers)))}
    layers = {op.module: op.layer for op in atoms.trace.ops if op.layer is not None}
    places = _places(atoms)
    families: dict[tuple[Footprint, str], list[int]] = defaultdict(list)
    for atom, held in places.items():
        footprint = tuple((holder, len(positions)) for holder, positions in held.items())
        families[footprint, atoms.reasons.get(atom, "")].append(atom)

    def written(footprint: Footprint) -> list[str]:
        names = [str(holder[1]) for holder, _ in footprint if holder[0] == "out" and holder[1] in order]
        return sorted(names, key=lambda name: order[name])

    def first(family: tuple[tuple[Footprint, str], list[int]]) -> tuple[int, int]:
        (footprint, _), members = family
        name = written(footprint)[0]
        return order[name], places[members[0]]["out", name, 0][0]

    searchable = [family for family in families.items() if written(family[0][0])]
    taken: set[str] = set()
    groups, left = [], []
    labels: dict[int, tuple[str, int]] = {}
    for (footprint, reason), members in sorted(searchable, key=first):
        names = written(footprint)
        rank: Holder = ("out", names[0], 0)
        members.sort(key=lambda atom: places[atom][rank][0])
        sites: list[str] = []
        if len(members) == 1 and not reason:
            reason = "all of it can only be cut at once"
        if not reason:
            sites, reason = minimal_sites(atoms, members[0], [holder for holder, _ in footprint])
        if reason:
            left.append((names[0], reason, sum(len(places[atom][rank]) for atom in members)))
            continue
        name = next((n for n in names if n not in taken), None) or _suffixed(names[0], taken)
        taken.add(name)
        slices = tuple(
            Slice(str(holder[1]), holder[0], tuple(tuple(places[atom][holder]) for atom in members))
            for holder, _ in footprint
            if holder[0] != "result"
        )
        own = {s.module: s for s in slices if s.side == "out"}
        many = [n for n in names if not is_depthwise(layers[n])]
        summed = len(many) > 1 and _summed(atoms, places[members[0]])
        groups.append(
            ChannelGroup(name, len(members), "stream" if summed else "inner", slices, tuple(own[s] for s in sites))
        )
        for channel, atom in enumerate(members):
            for holder, positions in places[atom].items():
                labels.update((atoms.start[holder] + position, (name, channel)) for position in positions)
    return Gathered(tuple(groups), _merged(left), labels)


def _places(atoms: Atoms) -> dict[int, dict[Holder, list[int]]]:
    """Atom → holder → positions, for the atoms that are not fixed by the input or the logits."""
    places: dict[int, dict[Holder, list[int]]] = defaultdict(dict)
    for holder, owners in atoms.holders():
        for position, atom in enumerate(owners.tolist()):
            if atom not in atoms.fixed:
                places[atom].setdefault(holder, []).append(position)
    return places


def _summed(atoms: Atoms, held: dict[Holder, list[int]]) -> bool:
    """Whether several tensors with this channel meet in a sum."""
    for i, (_, links) in atoms.maps.items():
        here = held.get(("result", i, 0))
        if here and atoms.trace.ops[i].kind in SUMS:
            meeting = {link.operand for link in links if np.isin(link.target, here).any()}
            if len(meeting) > 1:
                return True
    return False


def _suffixed(name: str, taken: set[str]) -> str:
    number = 2
    while f"{name}:{number}" in taken:
        number += 1
    return f"{name}:{number}"


def _merged(left: list[tuple[str, str, int]]) -> tuple[LeftWhole, ...]:
    """One line for each layer and reason."""
    widths: dict[tuple[str, str], int] = defaultdict(int)
    for name, reason, width in left:
        widths[name, reason] += width
    return tuple(LeftWhole(name, width, reason) for (name, reason), width in widths.items())
