"""Where a row of figures comes from: library versions, commit, device."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

LIBRARIES = (
    "subnet-search",
    "torch",
    "captum",
    "torch-pruning",
    "networkx",
    "numpy",
    "scipy",
    "accelerate",
    "torchmetrics",
    "safetensors",
    "scikit-learn",
    "pillow",
)


def library_versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that can change a figure; what is not installed is left out."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a checkout that is imported without being installed
            continue
    return versions


def current_commit() -> str | None:
    """Returns the commit of this package's checkout, None outside of one.

    `-dirty` stands after it where tracked files differ; result rows do not count, which every benchmark adds to.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # installed; a repository further up is somebody else's
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changed else commit


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def device_name(device: torch.device | str) -> str:
    """Returns the device in words: its kind, its model and, for a CPU, the number of threads that PyTorch uses."""
    device = torch.device(device)
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":
        return f"cpu: {_cpu_model()}, {torch.get_num_threads()} threads"
    return str(device)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
