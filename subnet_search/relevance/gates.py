"""A factor for every channel of every row, applied where the masks are: what the gradients are taken for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from subnet_search.ensemble import SubnetEnsemble
from subnet_search.errors import SubnetSearchError


@contextmanager
def gated(ensemble: SubnetEnsemble, gates: Mapping[str, Tensor]) -> Iterator[None]:
    """Multiplies the sites' outputs by gates while the context lasts.

    Gates stand after the normalisation: scaling weights towards zero before a normalisation in eval mode would not
    remove the channel, whose output would tend to β − γμ/σ.

    Args:
        ensemble: Its sites get forward hooks, removed on exit.
        gates: Group name → `[row, channel]`, member-major rows of the network's input; groups that are not named are left
            as they are. Where a layer writes several rows for each (frames folded into the batch), all have its gate.

    Raises:
        SubnetSearchError: while the context lasts, where the network gets another number of rows.
    """
    handles = [ensemble.network.register_forward_pre_hook(_check(gates))]
    try:
        for module, parts in _by_module(ensemble, gates).items():
            handles.append(ensemble.network.get_submodule(module).register_forward_hook(_hook(parts)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _by_module(ensemble: SubnetEnsemble, gates: Mapping[str, Tensor]) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """For each site module its parts: gates `[row, channel]`, and the gate of each output position, −1 for none."""
    modules: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, gate in gates.items():
        for site in ensemble.graph[name].sites:
            mask = ensemble.network.get_submodule(site.module).mask
            assert isinstance(mask, Tensor)
            source = torch.full((mask.shape[1],), -1, dtype=torch.int64)
            for channel, places in enumerate(site.index):
                source[list(places)] = channel
            modules.setdefault(site.module, []).append((gate, source.to(gate.device)))
    return modules


def _check(gates: Mapping[str, Tensor]):  # type: ignore[no-untyped-def] # torch leaves the type of hooks open
    def check(_network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for name, gate in gates.items():
            if len(gate) != len(inputs[0]):
                raise SubnetSearchError(
                    f"the gates of group {name!r} have {len(gate)} rows, expected {len(inputs[0])}: one for each member and image"
                )

    return check


def _hook(parts: list[tuple[Tensor, Tensor]]):  # type: ignore[no-untyped-def] # torch leaves the type of hooks open
    def multiply(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        factor = None
        for gate, source in parts:
            if torch.equal(source, torch.arange(gate.shape[1], device=source.device)):
                laid_out = gate
            else:  # a whole channel reads the column of ones that is appended
                ones = gate.new_ones(gate.shape[0], 1)
                laid_out = torch.cat([gate, ones], dim=1)[:, torch.where(source < 0, gate.shape[1], source)]
            factor = laid_out if factor is None else factor * laid_out
        assert factor is not None
        factor = factor.repeat_interleave(len(output) // len(factor), 0)  # a row of the input may be several here
        axis = getattr(module, "channel_axis", 1)
        shape = [len(factor)] + [1] * (output.ndim - 1)
        shape[axis] = factor.shape[1]
        return output * factor.to(output.dtype).view(shape)

    return multiply
