"""The grouped form: one network with the members side by side in its channels.

The batch stays as it is, `[batch, member * channel, ...]`, member-major: a convolution of all members is one with
`groups = members`. Where an operation counts or moves channels, they are `[batch, member, channel, ...]` for its sake,
which moves no data.
"""

from __future__ import annotations

import operator as python_operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from subnet_search.errors import SubnetSearchError
from subnet_search.packed.folding import drop_zero_branches, fold_norms
from subnet_search.packed.member_wise import FALLBACKS, RULES, Side, Value
from subnet_search.packed.program import Program, aten, operator


def group_members(programs: Sequence[Program], keep: Sequence[str] = ()) -> Program:
    """Makes one network of the members' networks, which have the same widths.

    Args:
        programs: One for each member, with the same operations and tensors of the same shapes.
        keep: Names of the norms that are not to be folded.

    Returns:
        Prepared input `[batch, ...]` → logits `[member, batch, class]`.

    Raises:
        SubnetSearchError: where the members' programs differ, or an operation has no form for several members at once.
    """
    grouping = _Grouping([fold_norms(program, keep) for program in programs])
    return drop_zero_branches(grouping.run())
