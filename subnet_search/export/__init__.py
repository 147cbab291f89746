"""An ensemble as a folder: weights that need no pickle, and a manifest that says what they are."""

from subnet_search.export.export import export_ensemble, update_figures
from subnet_search.export.load import check_files, load_ensemble
from subnet_search.export.manifest import FORMAT, Manifest, read_manifest

__all__ = ["FORMAT", "Manifest", "check_files", "export_ensemble", "load_ensemble", "read_manifest", "update_figures"]
