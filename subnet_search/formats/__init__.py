"""The ensemble in the forms that other programs run or read."""

from subnet_search.formats.agreement import Written
from subnet_search.formats.deployable import OUTPUTS, Deployable
from subnet_search.formats.mask_file import load_masks, save_masks
from subnet_search.formats.masksembles import to_masksembles
from subnet_search.formats.masksembles_reader import from_masksembles
from subnet_search.formats.member_file import save_member
from subnet_search.formats.onnx import export_onnx
from subnet_search.formats.packed_file import load_packed, save_packed
from subnet_search.formats.pt2 import export_pt2
from subnet_search.formats.pte import export_pte
from subnet_search.formats.write import FORMATS, FormatsConfig, write_formats

__all__ = [
    "FORMATS",
    "OUTPUTS",
    "Deployable",
    "FormatsConfig",
    "Written",
    "export_onnx",
    "export_pt2",
    "export_pte",
    "from_masksembles",
    "load_masks",
    "load_packed",
    "save_masks",
    "save_member",
    "save_packed",
    "to_masksembles",
    "write_formats",
]
