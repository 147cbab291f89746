"""Ensembles in the form in which they run fastest, and members as networks of their own."""

from subnet_search.packed.member import member_network
from subnet_search.packed.pack import PackConfig, pack
from subnet_search.packed.packed_ensemble import Form, PackedEnsemble, PackingReport

__all__ = ["Form", "PackConfig", "PackedEnsemble", "PackingReport", "member_network", "pack"]
