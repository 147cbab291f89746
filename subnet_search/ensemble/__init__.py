"""One network made of K subnetworks."""

from subnet_search.ensemble.member_layers import MemberLinear, MemberMask, MemberNorm
from subnet_search.ensemble.predictor import Predictor
from subnet_search.ensemble.recalibrate import recalibrate
from subnet_search.ensemble.subnet_ensemble import EnsembleConfig, SubnetEnsemble
from subnet_search.ensemble.thin import ThinEnsemble, thinned
from subnet_search.ensemble.uncertainty import Uncertainty, decompose, free_energy, uncertainty_of

__all__ = [
    "EnsembleConfig",
    "MemberLinear",
    "MemberMask",
    "MemberNorm",
    "Predictor",
    "SubnetEnsemble",
    "ThinEnsemble",
    "Uncertainty",
    "decompose",
    "free_energy",
    "recalibrate",
    "thinned",
    "uncertainty_of",
]
