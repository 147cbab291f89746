"""Which accuracy, at which independence, at which cost: a search over the settings of the main job."""

from subnet_search.tune.config import TuneConfig
from subnet_search.tune.space import SpaceConfig
from subnet_search.tune.table import study_table
from subnet_search.tune.workers import tune

__all__ = ["SpaceConfig", "TuneConfig", "study_table", "tune"]
