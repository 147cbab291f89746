"""Shortcuts padded with channels of zeros (He et al. 2016, option A), written as the convolutions that they amount to.

onnxruntime computes convolutions on channels in blocks, and leaves and enters these blocks again for the slices and the padding
of such a shortcut. A convolution with a single pixel and a stride stays inside.
"""

from __future__ import annotations

import torch
from torch import fx

from subnet_search.packed.grouped_rules import put_channels
from subnet_search.packed.program import Program, arguments, aten, operator


def shortcuts_as_convolutions(program: Program) -> Program:
    """Replaces every `x[:, :, ::s, ::s]` that is put among channels of zeros by a convolution with weights 0 and 1.

    The result is the same where activations are finite and convolutions in full precision: infinite ones would reach all
    channels, and TF32 rounds what a slice leaves as it is.

    Args:
        program: In the grouped form; it is not changed. Other paddings stay as they are, those of videos too.

    Returns:
        The program with convolutions in their place.
    """
    changed = program.copy()
    tensors = dict(changed.tensors)
    for node in list(changed.graph.nodes):
        found = _strided(node)
        if found is None:
            continue
        source, stride = found
        positions, channels = tensors[node.args[1].target], node.args[2]
        like = next(tensor for tensor in tensors.values() if tensor.is_floating_point())
        weight = like.new_zeros(channels, len(positions), 1, 1)
        weight[positions, torch.arange(len(positions), device=positions.device)] = 1.0
        name = f"{node.name}_weight"
        tensors[name] = weight
        with changed.graph.inserting_before(node):
            taken = changed.graph.call_function(
                aten.conv2d.default, (source, changed.graph.get_attr(name), None, list(stride))
            )
        taken.meta = dict(node.meta)
        node.replace_all_uses_with(taken)
    changed.graph.eliminate_dead_code()
    return Program(changed.graph, tensors)


def _strided(node: fx.Node) -> tuple[fx.Node, tuple[int, int]] | None:
    """Of what images, and at what distance the pixels are that a shortcut takes; None where the node is no shortcut."""
    if node.target is not put_channels or len(node.meta["shape"] or ()) != 3:
        return None
    steps: dict[int, int] = {}
    here, apart = node.args[0], False
    while isinstance(here, fx.Node):
        values = arguments(here) if operator(here) else {}
        if operator(here) == "flatten" and not apart and (values["start_dim"], values["end_dim"]) == (1, 2):
            apart = True
        elif operator(here) == "unflatten" and apart and values["dim"] == 1:
            apart = False
        elif operator(here) == "slice" and values["dim"] - apart in (2, 3) and _whole(values):
            axis = values["dim"] - apart
            steps[axis] = steps.get(axis, 1) * values["step"]
        else:
            break
        here = here.args[0]
    if apart or set(steps) != {2, 3} or not isinstance(here, fx.Node):
        return None
    return here, (steps[2], steps[3])


def _whole(values: dict[str, object]) -> bool:
    """Whether a slice goes from the first to the last position."""
    end = values["end"]
    return values["start"] in (None, 0) and (
        end is None or (isinstance(end, int) and end >= torch.iinfo(torch.int64).max)
    )
