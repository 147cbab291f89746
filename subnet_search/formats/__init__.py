"""The ensemble in the forms that other programs run or read."""

from subnet_search.formats.mask_file import load_masks, save_masks
from subnet_search.formats.masksembles import to_masksembles
from subnet_search.formats.masksembles_reader import from_masksembles

__all__ = ["from_masksembles", "load_masks", "save_masks", "to_masksembles"]
