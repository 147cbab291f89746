"""Training of the ensemble."""

from subnet_search.finetune.config import FinetuneConfig
from subnet_search.finetune.finetune import History, finetune
from subnet_search.finetune.order import order_of_epoch, steps_of_epoch

__all__ = ["FinetuneConfig", "History", "finetune", "order_of_epoch", "steps_of_epoch"]
