"""Rebuilds an exported ensemble, bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from subnet_search.backbones import Card, build_network
from subnet_search.backbones.checkpoint import load_weights, read_checkpoint
from subnet_search.backbones.load import BUILT_IN
from subnet_search.ensemble import SubnetEnsemble
from subnet_search.ensemble.member_layers import MemberMask, MemberNorm
from subnet_search.errors import SubnetSearchError
from subnet_search.export.manifest import WEIGHTS, Manifest, read_manifest


def load_ensemble(folder: str | Path, network: nn.Module | None = None, *, import_code: bool = False) -> SubnetEnsemble:
    """Loads an ensemble that `export_ensemble` wrote; its outputs are equal to the written one's bit for bit.

    Nothing of the folder is executed: no pickle is read, and no module that the manifest names is imported unless
    `import_code` allows it.

    Args:
        folder: The folder.
        network: A network of the same architecture as the one that the ensemble was made from, with any weights; it
            stays as it is. Needed where the ensemble was made from a Python object, which no name stands for.
        import_code: Whether the `module:callable` that the manifest names may be imported and called, with the
            arguments that stand there: whoever wrote the manifest chooses which of the code that Python finds here
            is run, so allow it for your own exports only. Built-in networks do not need it.

    Returns:
        The ensemble in eval mode, on the CPU.

    Raises:
        SubnetSearchError: where the folder or a file is missing, damaged, or of another format version, the SHA-256 of
            the weights differs, their masks are not those of the manifest, they hold NaN or infinity, the network
            is of another architecture, or it is not built in and neither `network` nor `import_code` is given.
    """
    folder = Path(folder)
    manifest = check_files(folder)
    path = folder / WEIGHTS
    state = read_checkpoint(path)
    dense = _build(manifest.card, folder, import_code) if network is None else network
    try:
        ensemble = SubnetEnsemble(dense, manifest.graph, manifest.masks, manifest.card, manifest.config)
    except SubnetSearchError as error:
        raise SubnetSearchError(f"{folder}: {error}") from error
    ensemble.cpu()
    masks = _masks_of(ensemble)
    _cast(ensemble, state)
    load_weights(ensemble, state, path)
    _check_masks(masks, state, manifest.masks.digest(), folder)
    memory = torch.channels_last if manifest.memory_format == "channels_last" else torch.contiguous_format
    ensemble.to(memory_format=memory)  # type: ignore[call-overload] # the stubs know only the variant with a device
    return ensemble.eval()


def check_files(folder: Path) -> Manifest:
    """Reads the manifest of an exported ensemble, and looks whether the weights are those that it describes.

    Args:
        folder: The folder that `export_ensemble` wrote.

    Returns:
        The manifest.

    Raises:
        SubnetSearchError: where the folder or a file is missing, damaged, or of another format version.
    """
    manifest = read_manifest(folder)
    _check_digest(folder / WEIGHTS, manifest.weights_sha256)
    return manifest


def _check_digest(path: Path, expected: str) -> None:
    if not path.is_file():
        raise SubnetSearchError(
            f"{path.parent}: has no {path.name}, expected the weights that its manifest describes; fetch the whole folder again"
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise SubnetSearchError(
            f"{path}: SHA-256 is {found[:16]}…, expected {expected[:16]}… by the manifest; the file is truncated, damaged or of another ensemble, "
            "fetch the folder or export the ensemble again"
        )


def _build(card: Card, folder: Path, import_code: bool) -> nn.Module:
    if card.name not in BUILT_IN and ":" in card.name and not import_code:
        raise SubnetSearchError(
            f"{folder}: its network {card.name!r} is none of the built-in ones ({', '.join(BUILT_IN)}), and the code that a manifest names is not "
            "run unasked; pass a network of the same architecture, load_ensemble(folder, network=...), or, where you trust the folder, import_code=True (--import-code)"
        )
    try:
        return build_network(card)
    except SubnetSearchError as error:
        raise SubnetSearchError(
            f"{folder}: its network {card.name!r} cannot be built by name ({error}); if the ensemble was made from a network object in Python, "
            "pass one of the same architecture: load_ensemble(folder, network=...)"
        ) from error


def _masks_of(ensemble: SubnetEnsemble) -> dict[str, Tensor]:
    """The masks by the names of their buffers; a network may have buffers of the same names."""
    found: dict[str, Tensor] = {}
    for name, layer in ensemble.named_modules():
        if isinstance(layer, MemberNorm | MemberMask):
            found[f"{name}.mask"] = layer.mask.clone()
            if layer.kept is not None:
                found[f"{name}.kept"] = layer.kept.clone()
    return found


def _check_masks(masks: Mapping[str, Tensor], state: Mapping[str, Tensor], digest: str, folder: Path) -> None:
    """Raises where the masks among the weights, with which the network computes, are not those of the manifest."""
    for name, mask in masks.items():
        if not torch.equal(mask, state[name]):
            raise SubnetSearchError(
                f"{folder}: the masks in {WEIGHTS} differ from those of the manifest (digest {digest[:16]}…), first in {name!r}; "
                "the two files are of different ensembles, fetch the folder or export the ensemble again"
            )


def _cast(ensemble: SubnetEnsemble, state: Mapping[str, Tensor]) -> None:
    """Gives parameters and buffers the precision of the file; copying alone would keep the network's own."""
    for name, tensor in (*ensemble.named_parameters(), *ensemble.named_buffers()):
        if name in state and tensor.dtype != state[name].dtype:
            tensor.data = tensor.data.to(state[name].dtype)
