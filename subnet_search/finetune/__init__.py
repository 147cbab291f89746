"""Training of the ensemble."""

from subnet_search.finetune.config import FinetuneConfig
from subnet_search.finetune.finetune import History, finetune
from subnet_search.finetune.mode import mode_to_take
from subnet_search.finetune.order import order_of_epoch, steps_of_epoch

__all__ = ["FinetuneConfig", "History", "finetune", "mode_to_take", "order_of_epoch", "steps_of_epoch"]
