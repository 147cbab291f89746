"""Every system of the comparison, as a predictor and its training."""

from subnet_search.baselines.methods import CONTROL_MASKS, SYSTEMS, build, check
from subnet_search.baselines.system import BaselineConfig, Setup, System
from subnet_search.baselines.training import train

__all__ = ["CONTROL_MASKS", "SYSTEMS", "BaselineConfig", "Setup", "System", "build", "check", "train"]
