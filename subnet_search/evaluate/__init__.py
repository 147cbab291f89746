"""Figures of a network: accuracy, calibration, selective prediction, OOD detection, diversity and cost."""

from subnet_search.evaluate.evaluate import EvaluateConfig, evaluate
from subnet_search.evaluate.outputs import Outputs, predict_dataset
from subnet_search.evaluate.row import check_row, result_row, row_line

__all__ = [
    "EvaluateConfig",
    "Outputs",
    "check_row",
    "evaluate",
    "predict_dataset",
    "result_row",
    "row_line",
]
