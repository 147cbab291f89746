"""The shuffled twin of a mask set, which alone tells what its relevance is worth."""

from __future__ import annotations

import torch

from subnet_search.masks import MaskSet


def shuffled(masks: MaskSet, seed: int = 0) -> MaskSet:
    """Permutes the channels of each group at random, by one permutation for all members.

    Widths, overlaps and every other trait of who shares with whom stay as they are; only *which* channels play
    these parts is random. What the original gains over its twin is due to the choice of channels.

    Args:
        masks: Any mask set.
        seed: Seed of the permutations, at least 0.

    Returns:
        Masks of the same shapes, with `+shuffled` behind the algorithm's name and the original's digest in `notes`.
    """
    generator = torch.Generator().manual_seed(seed)
    permuted = {name: mask[:, torch.randperm(mask.shape[1], generator=generator)] for name, mask in masks.masks.items()}
    notes = {"shuffled_from": masks.digest(), **{key: masks.notes[key] for key in ("common",) if key in masks.notes}}
    return MaskSet(permuted, f"{masks.algorithm}+shuffled", seed, notes, masks.depth)
