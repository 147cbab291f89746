"""What masks are worth without training."""

from subnet_search.measure.mask_measure import MaskMeasure

__all__ = ["MaskMeasure"]
