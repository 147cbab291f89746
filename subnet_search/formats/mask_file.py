"""Masks as a plain NumPy archive, for masks that other programs make or read."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subnet_search.data.npz import read_archive
from subnet_search.errors import SubnetSearchError
from subnet_search.files import write_bytes
from subnet_search.groups import GroupGraph
from subnet_search.masks import MaskSet

DEPTH = "depth/"
"""What stands before the site of a residual branch."""

SHA = b"sha256 "
"""What stands before the digest in the archive's comment."""


def save_masks(masks: MaskSet, path: str | Path) -> Path:
    """Writes masks, whole or not at all; equal masks give equal bytes.

    The SHA-256 of all arrays stands in the comment of the archive: a directory that lost an entry would else read as
    a group that is kept whole.

    Args:
        masks: The masks. Algorithm, seed and notes are not written.
        path: Target, usually `.npz`: one bool array `[member, channel]` under the name of each group, and one
            `[member]` under `depth/SITE` for each residual branch that some member leaves out. A file there is
            replaced, missing parent folders are made.

    Returns:
        The path.
    """
    arrays = {name: mask.numpy() for name, mask in masks.masks.items()}
    arrays |= {DEPTH + site: kept.numpy() for site, kept in masks.depth.items()}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:  # numpy.savez has no group called 'file', and writes the time of day
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED)
        file.comment = _digest(arrays)
    path = Path(path)
    write_bytes(path, archive.getvalue())
    return path


def load_masks(path: str | Path, graph: GroupGraph) -> MaskSet:
    """Reads masks that `save_masks` or another program wrote; nothing in the file is executed.

    Args:
        path: `.npz` file with one array `[member, channel]` under the name of each group, true or 1 where the member
            keeps the channel, and, for residual branches that some member leaves out, `[member]` under `depth/SITE`.
        graph: The channel groups of the network. Those that the file does not name are kept whole by all members.

    Returns:
        Masks of all groups of the graph; the note `kept_whole` names the groups that were not in the file.

    Raises:
        SubnetSearchError: where the file is missing, damaged or wants to execute code, it names groups or branches
            that the network does not have, an array has another shape or other values than 0 and 1, the numbers of
            members differ, or a member keeps nothing.
    """
    path = Path(path)
    arrays = _read(path)
    sites = [branch.site for branch in graph.branches]
    depth, masks = {}, {}
    members: dict[str, int] = {}
    for name, array in arrays.items():
        site = name.removeprefix(DEPTH)
        if name in graph.widths:
            masks[name] = _bool(path, name, array, (None, graph.widths[name]))
        elif name.startswith(DEPTH) and site in sites:
            depth[site] = _bool(path, name, array, (None,))
        else:
            raise SubnetSearchError(_unknown(path, name, graph, sites))
        members[name] = len(array)
    if len(set(members.values())) > 1:
        raise SubnetSearchError(
            f"masks {path}: arrays disagree on the number of members: {members}; expected one number"
        )
    count = next(iter(members.values()))
    absent = [name for name in graph.widths if name not in masks]
    whole = {name: torch.ones(count, graph.widths[name], dtype=torch.bool) for name in absent}
    ordered = {name: masks[name] if name in masks else whole[name] for name in graph.widths}
    try:
        return MaskSet(ordered, "file", notes={"kept_whole": absent} if absent else {}, depth=depth)
    except SubnetSearchError as error:
        raise SubnetSearchError(f"masks {path}: {error}") from error


def _read(path: Path) -> Mapping[str, NDArray[Any]]:
    source = f"masks {path}"
    arrays, comment = read_archive(path, source, None, "write it with save_masks or numpy.savez")
    if comment.startswith(SHA) and comment != _digest(arrays):
        raise SubnetSearchError(
            f"{source}: damaged, its arrays are not those that were written; write or fetch it again"
        )
    if not arrays:
        raise SubnetSearchError(f"{source}: holds no arrays, expected one [member, channel] under the name of a group")
    return arrays


def _digest(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    sha = hashlib.sha256()
    for name in sorted(arrays):
        sha.update(f"{name}:{arrays[name].shape}:".encode() + arrays[name].tobytes())
    return SHA + sha.hexdigest().encode()


def _bool(path: Path, name: str, array: Any, shape: tuple[int | None, ...]) -> Tensor:
    """Checks an array; None in `shape` is the number of members, at least one."""
    wanted = f"[member, {shape[1]}]" if len(shape) > 1 else "[member]"
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise SubnetSearchError(f"masks {path}: {name!r} is {found}, expected 0 and 1 {wanted}")
    if array.ndim != len(shape) or array.shape[1:] != shape[1:] or not len(array):
        raise SubnetSearchError(f"masks {path}: {name!r} has shape {list(array.shape)}, expected {wanted}")
    if not ((array == 0) | (array == 1)).all():
        raise SubnetSearchError(
            f"masks {path}: {name!r} holds values from {array.min()} to {array.max()}, expected 0 and 1 (or bool)"
        )
    return torch.from_numpy(array.astype(np.bool_))


def _unknown(path: Path, name: str, graph: GroupGraph, sites: list[str]) -> str:
    if name.startswith(DEPTH):
        return f"masks {path}: no residual branch {name.removeprefix(DEPTH)!r}, expected some of {sites}"
    return (
        f"masks {path}: no group {name!r}, expected some of {list(graph.widths)}, and depth/SITE for residual branches"
    )
