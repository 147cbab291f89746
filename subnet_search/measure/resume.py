"""A forward pass that starts in the middle, where what comes before has not changed.

A network's Python code cannot be entered in the middle. So all of it runs, but the tensor operations before the middle are
skipped: those whose result is still needed return what an earlier pass has kept, the others an empty tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from subnet_search.groups.resizing import resizes


@dataclass(frozen=True)
class Outline:
    """The tensor operations of a forward pass, in order.

    Attributes:
        starts: Name of a module → how many operations come before it runs for the first time.
        resizes: How many operations come before each call that pads or splits channels (`ResizeCall`), in order.
        last_reader: For each operation the number of the last one that reads its result; −1 where none does.
        results: For each operation its result, with an empty tensor in the place of each tensor.
    """

    starts: Mapping[str, int]
    resizes: tuple[int, ...]
    last_reader: tuple[int, ...]
    results: tuple[Any, ...]


@dataclass(frozen=True)
class Snapshot:
    """What a pass needs to start in the middle.

    Attributes:
        number: How many operations are skipped.
        results: Operation → its result, of those that are read later and those that are no tensors.
    """

    number: int
    results: Mapping[int, Any]

    @property
    def bytes(self) -> int:
        """Memory that the tensors take."""
        return sum(tensor.nbytes for result in self.results.values() for tensor in _tensors(result))


@torch.no_grad()
def outline(network: nn.Module, example: Tensor) -> Outline:
    """Writes down the operations of a forward pass; they have to be the same for any weights and any batch.

    Args:
        network: In the modes in which it is to run; dotted names in the result are its modules'.
        example: Prepared input.
    """
    recorder = _Recorder()
    starts: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        def begins(_module: nn.Module, _inputs: Any) -> None:
            starts.setdefault(name, len(recorder.results))

        return begins

    hooks = [module.register_forward_pre_hook(note(name)) for name, module in network.named_modules()]
    try:
        with recorder:
            network(example)
    finally:
        for hook in hooks:
            hook.remove()
    nothing = torch.empty(0, device=example.device)
    results = tuple(_replaced(result, lambda _: nothing) for result in recorder.results)
    return Outline(starts, tuple(recorder.resizes), tuple(recorder.last_reader), results)


@torch.no_grad()
def resumed(
    network: nn.Module, x: Tensor, plan: Outline, start: Snapshot | None = None, keep: int | None = None
) -> tuple[Any, Snapshot | None]:
    """Runs a network from where a snapshot was taken.

    Args:
        network: Does the same operations as when the outline was made, and the same before the snapshot as the network
            from which that was taken.
        x: Prepared input, the same as then.
        plan: Its outline.
        start: Where to start; None starts at the beginning.
        keep: Take a snapshot before the operation of this number, not before that of `start`; None takes none.

    Returns:
        What the network returns, and the snapshot.
    """
    mode = _Resumed(plan, start, keep)
    with mode:
        answer = network(x)
    return answer, mode.snapshot


class _Recorder(TorchFunctionMode):
    """Notes the result of each operation and who reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[Any] = []  # which keeps them alive, so that no two have one id
        self.last_reader: list[int] = []
        self.resizes: list[int] = []
        self.made_by: dict[int, int] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        number = len(self.results)
        if resizes(func):
            self.resizes.append(number)
        for tensor in _tensors((args, list((kwargs or {}).values()))):
            if id(tensor) in self.made_by:
                self.last_reader[self.made_by[id(tensor)]] = number
        result = func(*args, **(kwargs or {}))
        self.results.append(result)
        self.last_reader.append(-1)
        for tensor in _tensors(result):
            self.made_by[id(tensor)] = number
        return result


class _Resumed(TorchFunctionMode):
    """Skips operations and takes a snapshot."""

    def __init__(self, plan: Outline, start: Snapshot | None, keep: int | None) -> None:
        super().__init__()
        self.plan, self.start, self.keep = plan, start, keep
        self.number = 0
        self.results: dict[int, Any] = {}
        self.snapshot: Snapshot | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        number = self.number
        self.number += 1
        if number == self.keep:
            # copies, as a later operation may work in place
            self.snapshot = Snapshot(number, {n: _replaced(r, torch.clone) for n, r in self.results.items()})
            self.results.clear()
        if self.start is not None and number < self.start.number:
            known = self.start.results.get(number, self.plan.results[number])
            result = _replaced(known, torch.clone) if number in self.start.results else known
        else:
            result = func(*args, **(kwargs or {}))
        if self.keep is not None and number < self.keep and self._is_needed(number, result, self.keep):
            self.results[number] = result
        return result

    def _is_needed(self, number: int, result: Any, keep: int) -> bool:
        return self.plan.last_reader[number] >= keep or not any(True for _ in _tensors(result))


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a tensor, tuple or list."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _replaced(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The value with its tensors changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple) and any(True for _ in _tensors(value)):
        changed = [_replaced(item, change) for item in value]
        return type(value)(*changed) if hasattr(value, "_fields") else type(value)(changed)
    return value
