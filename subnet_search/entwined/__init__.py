"""Search that trains while it searches."""

from subnet_search.entwined.gates import gates
from subnet_search.entwined.phases import Phase, joined, train_phases
from subnet_search.entwined.progressive import progressive
from subnet_search.entwined.rounds import Scorer, scorer

__all__ = ["Phase", "Scorer", "gates", "joined", "progressive", "scorer", "train_phases"]
