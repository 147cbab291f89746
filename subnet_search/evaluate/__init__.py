"""Figures of a network: accuracy, calibration, selective prediction, OOD detection, shift, diversity and cost."""

from subnet_search.evaluate.answers import Answers, answers_of
from subnet_search.evaluate.curves import Reliability, RiskCoverage, reliability, risk_coverage
from subnet_search.evaluate.evaluate import EvaluateConfig, evaluate
from subnet_search.evaluate.outputs import Outputs, predict_dataset
from subnet_search.evaluate.refusal import known_limits, limits, refused
from subnet_search.evaluate.row import check_row, result_row, row_line

__all__ = [
    "Answers",
    "EvaluateConfig",
    "Outputs",
    "Reliability",
    "RiskCoverage",
    "answers_of",
    "check_row",
    "evaluate",
    "known_limits",
    "limits",
    "predict_dataset",
    "refused",
    "reliability",
    "result_row",
    "risk_coverage",
    "row_line",
]
