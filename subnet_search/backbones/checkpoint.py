"""Reading weights without executing anything that the file brings along."""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from subnet_search.errors import SubnetSearchError, first_line

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts put the weights beside the epoch and the optimiser."""

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Reads the weights of a `.safetensors` file or of a PyTorch checkpoint, on the CPU.

    Args:
        path: The file. Anything whose name does not end in `.safetensors` is read as a PyTorch checkpoint, with
            `weights_only=True`.

    Returns:
        Parameter name → tensor, unwrapped from `state_dict` or `model` and without the prefixes of wrappers.

    Raises:
        SubnetSearchError: where the file is missing, truncated, not a checkpoint, wants to execute code, or holds
            anything else than named, finite tensors.
    """
    path = Path(path)
    if not path.is_file():
        there = "a folder" if path.is_dir() else "nothing"
        raise SubnetSearchError(f"weights {path}: found {there}, expected a .safetensors file or a PyTorch checkpoint")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    state = _unwrap(content, path)
    check_finite(state, f"weights {path}")
    return state


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Refuses weights that no network can work with.

    Args:
        state: Parameter name → tensor.
        source: Where they come from, for the error message.

    Raises:
        SubnetSearchError: where a tensor holds NaN or infinity.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            bad = int((~tensor.isfinite()).sum())
            raise SubnetSearchError(
                f"{source}: {bad} of {tensor.numel()} values of {name!r} are NaN or infinite, expected finite numbers; "
                "the training that wrote it has diverged, take an earlier checkpoint"
            )


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Copies weights into a network, all of them or none.

    Args:
        model: The network; changed in place.
        state: Parameter name → tensor, as `read_checkpoint` returns it.
        source: Where the weights come from, for the error message.

    Raises:
        SubnetSearchError: where names are missing or unexpected, or shapes differ; the first of each are named.
    """
    wanted = model.state_dict()
    # the number of batches seen was added to BatchNorm after many checkpoints had been written, and nothing here reads it
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in wanted]
    reshaped = [
        f"{name} (file {tuple(state[name].shape)}, network {tuple(tensor.shape)})"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    faults = [
        f"{len(names)} {fault}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
        for fault, names in (
            ("missing in the file", missing),
            ("unknown to the network", unexpected),
            ("of another shape", reshaped),
        )
        if names
    ]
    if faults:
        raise SubnetSearchError(
            f"weights {source} are those of another architecture than {type(model).__name__}: {'; '.join(faults)}; "
            "name the network and the arguments with which the weights were trained"
        )
    model.load_state_dict({**wanted, **state})


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise SubnetSearchError(
            f"weights {path}: truncated or not a safetensors file ({first_line(error)[:160]}); fetch or export it again"
        ) from error


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():  # torch warns about the pickle's protocol, which the error below covers
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        called = re.search(r"GLOBAL (\S+)", str(error))
        if called or _imports(path):
            what = f"wants to execute code ({called[1]})" if called else "wants to execute code"
            raise SubnetSearchError(
                f"weights {path}: the pickle {what} and was not loaded; expected tensors only. If you trust its source, load it "
                "yourself and save model.state_dict() with safetensors.torch.save_file"
            ) from error
        raise _damaged(path, error) from error
    except Exception as error:  # a damaged pickle can fail in any way: KeyError, EOFError, struct.error, RuntimeError
        raise _damaged(path, error) from error


def _imports(path: Path) -> bool:
    """Tells whether a plain pickle, of a protocol too new for torch, names anything to import; nothing is executed."""
    try:
        return any(
            code.name in ("GLOBAL", "STACK_GLOBAL", "INST") for code, _, _ in pickletools.genops(path.read_bytes())
        )
    except ValueError:  # no pickle at all
        return False


def _damaged(path: Path, error: Exception) -> SubnetSearchError:
    return SubnetSearchError(
        f"weights {path}: truncated or not a PyTorch checkpoint ({type(error).__name__}: {first_line(error)[:160]}); "
        "fetch or save it again, and give safetensors files the ending .safetensors"
    )


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    for _ in WRAPPERS:  # wrappers may be nested
        key = next(
            (key for key in WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)), None
        )
        if key is None:
            break
        content = content[key]
    if not isinstance(content, Mapping):
        raise SubnetSearchError(
            f"weights {path}: found a {type(content).__name__}, expected a mapping from names to tensors"
        )
    if not content:
        raise SubnetSearchError(
            f"weights {path}: the state dict is empty, expected named tensors; save model.state_dict()"
        )
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise SubnetSearchError(
                f"weights {path}: entry {name!r} is a {type(value).__name__}, expected a tensor; "
                f"save model.state_dict(), alone or under one of {', '.join(WRAPPERS)}"
            )
    state = {str(name): value for name, value in content.items()}
    while prefix := next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in state)), ""):
        state = {name.removeprefix(prefix): value for name, value in state.items()}  # wrappers come in any order
    return state
