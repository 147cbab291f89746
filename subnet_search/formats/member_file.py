"""One member's weights under the names of the backbone, for tools that know nothing of ensembles."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save

from subnet_search.ensemble import SubnetEnsemble
from subnet_search.files import write_bytes
from subnet_search.packed import member_network


def save_member(ensemble: SubnetEnsemble, member: int, path: str | Path) -> int:
    """Writes the state dict of `member_network`, whole or not at all.

    Args:
        ensemble: The ensemble.
        member: Number of the member, 0 to K - 1.
        path: Target, a `.safetensors` file, replaced in one step. Its metadata hold the card, the number of the member
            and, for each group, the numbers of the channels that are left (`kept`), as JSON.

    Returns:
        The size of the file in bytes.

    Raises:
        SubnetSearchError: where there is no such member.
    """
    state = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in member_network(ensemble, member).state_dict().items()
    }
    kept = {name: mask[member].nonzero().flatten().tolist() for name, mask in ensemble.masks.masks.items()}
    described = {"card": json.dumps(ensemble.card.to_dict()), "member": str(member), "kept": json.dumps(kept)}
    content = save(state, described)
    write_bytes(path, content)
    return len(content)
