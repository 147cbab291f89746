"""Images and labels: sources, splits, batches, augmentation and corruption."""

from subnet_search.data.array_dataset import UNLABELLED, ArrayDataset, check_labels, check_training
from subnet_search.data.augment import Augmentation, augment
from subnet_search.data.batches import batches, evenly, labels_of
from subnet_search.data.corrupt import check_picture, corrupt
from subnet_search.data.digest import digest
from subnet_search.data.folder import load_image
from subnet_search.data.sources import load_data, source_name
from subnet_search.data.split import VALIDATION_FRACTION, split

__all__ = [
    "UNLABELLED",
    "VALIDATION_FRACTION",
    "ArrayDataset",
    "Augmentation",
    "augment",
    "batches",
    "check_labels",
    "check_picture",
    "check_training",
    "corrupt",
    "digest",
    "evenly",
    "labels_of",
    "load_data",
    "load_image",
    "source_name",
    "split",
]
