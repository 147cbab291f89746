"""Whether the network knows that an input comes from another domain.

OOD is the positive class and a higher score means more OOD. `msp`: 1 − largest mean probability; `entropy`: of the mean
probabilities; `mi`: mutual information; `energy`: free energy of the logits (Liu et al. 2020). AUPR is average precision;
FPR95 is the share of in-distribution samples that score at least the highest threshold that flags 95 % of the OOD
samples. Equal scores enter together.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from subnet_search.ensemble.uncertainty import decompose
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate.outputs import Outputs
from subnet_search.evaluate.ranking import auroc, average_precision, fpr_at_tpr


def ood_scores(outputs: Outputs) -> Mapping[str, Tensor | None]:
    """Returns each criterion's score, `[sample]`, higher = more OOD, under the names of `keys.CRITERIA`.

    None where there is none: of the mutual information with one member, of the energy where only probabilities are known.
    """
    uncertainty = decompose(outputs.member_probabilities)
    return {
        "msp": 1.0 - uncertainty.max_probability,
        "entropy": uncertainty.total,
        "mi": uncertainty.epistemic if outputs.members > 1 else None,
        "energy": outputs.energy,
    }


def ood_figures(inside: Tensor, outside: Tensor) -> Mapping[str, float | None]:
    """Computes AUROC, AUPR and FPR95 of one score.

    Args:
        inside: Scores of the in-distribution test samples, `[sample]`.
        outside: Scores of the OOD samples, `[sample]`.

    Returns:
        `AUROC`, `AUPR` (higher is better) and `FPR95` (lower is better), each in [0, 1].

    Raises:
        SubnetSearchError: where one of them has no samples, or a score is not finite.
    """
    if len(inside) == 0 or len(outside) == 0:
        raise SubnetSearchError(
            f"OOD detection: got {len(inside)} in-distribution and {len(outside)} OOD samples, expected at least one of each"
        )
    scores = torch.cat([inside, outside])
    positive = torch.arange(len(scores), device=scores.device) >= len(inside)
    return {
        "AUROC": auroc(scores, positive),
        "AUPR": average_precision(scores, positive),
        "FPR95": fpr_at_tpr(scores, positive, 95),
    }
