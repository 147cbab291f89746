"""Writes down the networks of all members, and no network twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from subnet_search.groups import SlicedNetwork
from subnet_search.packed.program import Program, operator, trace_program

AGREEMENT = 1e-4
"""Largest relative difference between a network and a program that was written down from another member."""


def trace_members(networks: Sequence[SlicedNetwork], example: Tensor) -> list[Program]:
    """Writes down what each member's network computes.

    Tracing takes seconds for a large network, and members of one ensemble differ by their weights and widths only. So
    a member's weights are put into the program of an earlier one; where widths or the numbers of channels in the code
    differ, that has to run and to agree with the member's network.

    Args:
        networks: The members' networks in eval mode.
        example: Prepared input `[batch, ...]` on their device.

    Returns:
        A program for each.

    Raises:
        SubnetSearchError: where `torch.export` cannot follow the network's code.
    """
    traced: list[tuple[SlicedNetwork, Program]] = []
    programs = []
    for network in networks:
        program = next((p for other, known in traced if (p := _reused(known, other, network, example))), None)
        if program is None:
            program = trace_program(network, example)
            traced.append((network, program))
        programs.append(program)
    return programs


def _reused(known: Program, other: SlicedNetwork, network: SlicedNetwork, example: Tensor) -> Program | None:
    """The program with the tensors of a network, if it computes the same then."""
    state = {name.replace(".", "_"): tensor.detach() for name, tensor in network.network.state_dict().items()}
    if not set(known.tensors) <= set(state):
        return None
    program = Program(known.graph, {name: state[name] for name in known.tensors}).copy()
    if _numbers(other) != _numbers(network):
        _renumber(program, network)
    elif all(program.tensors[name].shape == tensor.shape for name, tensor in known.tensors.items()):
        return program
    sample = example[:1]
    try:
        with torch.no_grad():
            expected, got = network(sample), _Shapes(program.module(), program.graph).run(sample)
    except (RuntimeError, IndexError):  # a width that is written into the program
        return None
    close = got.shape == expected.shape and bool((got - expected).abs().max() <= AGREEMENT * expected.abs().max())
    return program if close else None


def _numbers(network: SlicedNetwork) -> Mapping[int, list[int]]:
    """The numbers of channels in the network's code."""
    return {number: counts for number, (_, counts) in network.plans.items()}


def _renumber(program: Program, network: SlicedNetwork) -> None:
    """Writes the network's numbers of channels into the program, whose calls should be in the order of the code."""
    calls = [node for node in program.graph.nodes if operator(node) in ("pad", "constant_pad_nd", "split_with_sizes")]
    for number, (resize, counts) in network.plans.items():
        if number >= len(calls):
            return  # the comparison will tell
        node = calls[number]
        numbers = list(node.args[1])
        if operator(node) == "split_with_sizes":
            numbers = counts
        else:
            place = 2 * (len(node.meta["shape"]) - resize.axis)
            numbers[place : place + 2] = counts
        node.args = (node.args[0], numbers, *node.args[2:])


class _Shapes(fx.Interpreter):
    """Runs a program and notes the shapes anew."""

    def __init__(self, module: fx.GraphModule, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph)

    def run_node(self, n: fx.Node) -> Any:
        """Runs an operation."""
        result = super().run_node(n)
        n.meta["shape"] = tuple(result.shape[1:]) if isinstance(result, Tensor) and n.op != "get_attr" else None
        return result
