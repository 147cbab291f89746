"""The names of the figures: the only list of them. They follow torch-uncertainty's, so that tables can be joined."""

from __future__ import annotations

import re
from typing import Literal, get_args

FIXED_KEYS = (
    "cls/Acc",
    "cls/NLL",
    "cls/Brier",
    "cls/NLL_TS",
    "cal/ECE",
    "cal/ECE_TS",
    "sc/AURC",
    "sc/AUGRC",
    "sc/Cov@5Risk",
    "sc/ErrAUROC",
    "aleatoric/Spearman",
    "ens/MemberAcc",
    "ens/Disagreement",
    "ens/ErrCorr",
    "ens/KL",
    "ens/IoU",
    "cplx/MACs",
    "cplx/MACsRatio",
    "cplx/Params",
    "cplx/LatencyMs",
)
"""In every row, null where absent."""

NEVER_NULL = ("cls/Acc", "cls/NLL", "cls/Brier", "cal/ECE", "sc/AURC", "sc/AUGRC", "sc/Cov@5Risk")
"""What exists for every network and every labelled test set."""

CRITERIA = ("msp", "entropy", "mi", "energy")
"""The scores by which OOD samples are told from test samples, see `ood`."""

Score = Literal["max_probability", "total", "epistemic", "energy"]
SCORES: tuple[Score, ...] = get_args(Score)
"""The scores that images can be refused by, see `refusal`."""

FIGURES = ("AUROC", "AUPR", "FPR95")
"""What is computed of each of them."""

OOD_AUROC = "ood/*/AUROC/entropy"
"""A pattern: the AUROC by entropy on every OOD set."""

_OOD = re.compile(rf"ood/[^/]+/({'|'.join(FIGURES)})/({'|'.join(CRITERIA)})")
_LIMIT = re.compile(rf"refuse/({'|'.join(SCORES)})")
_SHIFT = re.compile(r"shift/[^/]+/\d+/(Acc|NLL|ECE)")


def ood_key(name: str, figure: str, criterion: str) -> str:
    """Returns the key of an OOD figure, such as `ood/svhn/AUROC/entropy`."""
    return f"ood/{name}/{figure}/{criterion}"


def limit_key(score: str) -> str:
    """Returns the key of the limit beyond which images are refused, such as `refuse/total`."""
    return f"refuse/{score}"


def shift_key(kind: str, severity: int, figure: str) -> str:
    """Returns the key of a figure under shift, such as `shift/blur/3/NLL`."""
    return f"shift/{kind}/{severity}/{figure}"


def is_key(key: str) -> bool:
    """Returns whether a metric of this name is documented."""
    return key in FIXED_KEYS or any(kind.fullmatch(key) for kind in (_OOD, _SHIFT, _LIMIT))
