"""From a network to its searchable channels."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from subnet_search.errors import SubnetSearchError
from subnet_search.groups.atoms import Atoms, find_atoms
from subnet_search.groups.branches import find_branches
from subnet_search.groups.channel_group import Branch, ChannelGroup, GroupGraph, LeftWhole, ResizeCall
from subnet_search.groups.cost import cost_graph, counted_macs
from subnet_search.groups.grouping import gather
from subnet_search.groups.operation_kinds import SPLITS
from subnet_search.groups.trace import trace
from subnet_search.groups.trunk import noted_order
from subnet_search.groups.verify import MISPLACED, Verifier


def find_groups(model: nn.Module, example: Tensor, *, required: bool = True) -> GroupGraph:
    """Finds the channels of a network that have to be kept or cut together, and checks each group numerically.

    Coupled channels come from a trace (Fang et al., 2023, DepGraph, with index maps of our own); a group is searchable
    only where masking it at its sites and cutting it out give the same logits on random masks, with randomised
    statistics, affine parameters and biases. Other channels are left whole and reported.

    Args:
        model: The network. It is not changed, nor is the global random state.
        example: Input `[batch, ...]` with at least one sample, floating point, as the network expects it.
        required: Whether a network without any searchable group is refused. Otherwise its graph has no groups, and
            tells what it costs all the same.

    Returns:
        The groups, what is left whole and why, and the cost model.

    Raises:
        SubnetSearchError: where the network cannot run or be traced on the example, its output is not
            `[batch, class]`, in training mode either, or, although a group is required, none is searchable or a batch
            norm or the head has rows that are not those of the samples: members could not have their own.
    """
    sample = _sample(model, example)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        twin = _twin(model)
        counts: Counter[str] = Counter()
        order: list[str] = []
        with torch.no_grad(), counted_macs(twin, counts), noted_order(twin, order):
            logits = _run(twin, sample)
        _check_training(model, sample)
        atoms = find_atoms(trace(twin, sample))
        gathered = gather(atoms)

        def assemble(
            groups: Sequence[ChannelGroup], left: Sequence[LeftWhole], branches: Sequence[Branch]
        ) -> GroupGraph:
            names = {group.name for group in groups}
            labels = {position: label for position, label in gathered.labels.items() if label[0] in names}
            return GroupGraph(
                groups=tuple(groups),
                left_whole=tuple(left),
                graph=cost_graph(twin, tuple(groups), counts),
                norms=_norms(twin),
                head=_head(atoms),
                classes=logits.shape[1],
                example_shape=tuple(sample.shape[1:]),
                resizes=_resizes(atoms, labels),
                branches=tuple(branches),
                order=tuple(order),
            )

        candidates = assemble(gathered.groups, (), find_branches(atoms.trace))
        verifier = Verifier(twin, candidates, sample)
        reasons = verifier.refuted()
    branches = [branch for branch in candidates.branches if branch.site not in verifier.misplaced]
    if owned := _owned(candidates, verifier.misplaced):
        if required:
            raise SubnetSearchError(
                f"members cannot have {owned} of their own: {MISPLACED}; expected batch first: put the batch on axis 0 before the layer, and run a block that several inputs go through once for each of them instead of on torch.cat"
            )
        branches = []
        reasons = {g.name: f"members cannot have {owned} of their own: {MISPLACED}" for g in gathered.groups}
    left = list(gathered.left_whole)
    left += [LeftWhole(g.name, g.width, reasons[g.name]) for g in gathered.groups if g.name in reasons]
    groups = [group for group in gathered.groups if group.name not in reasons]
    graph = assemble(groups, left, branches)
    if required:
        check_groups(graph)
    return graph


def check_groups(graph: GroupGraph) -> None:
    """Raises where nothing can be searched.

    Args:
        graph: What `find_groups` has found.

    Raises:
        SubnetSearchError: where there is no group, with what stands in the way of each candidate.
    """
    if graph.groups:
        return
    listed = "; ".join(f"{whole.name} ({whole.width} channels): {whole.reason}" for whole in graph.left_whole)
    raise SubnetSearchError(
        f"the network has no channels that can be searched, expected at least one group of channels between two layers. Left whole: {listed or 'nothing, as no nn.Conv or nn.Linear that autograd sees writes anything but the logits'}"
    )


def _sample(model: nn.Module, example: Tensor) -> Tensor:
    """Two samples on the CPU: with one, a reshape could take the batch for the channels."""
    compiled = hasattr(model, "_orig_mod")  # to import the class of such networks would load the compiler
    if compiled or isinstance(model, torch.jit.ScriptModule):
        instead = "model._orig_mod" if compiled else "the network that it was made from"
        raise SubnetSearchError(
            f"the network is compiled ({type(model).__name__}), and its layers cannot be taken apart; give {instead}, and compile what comes out"
        )
    if not any(True for _ in model.parameters()):
        raise SubnetSearchError("the network has no parameters; expected a trained classifier")
    if not isinstance(example, Tensor) or not example.is_floating_point() or example.ndim < 2 or not len(example):
        got = (
            f"{example.dtype} of shape {tuple(example.shape)}"
            if isinstance(example, Tensor)
            else type(example).__name__
        )
        raise SubnetSearchError(
            f"the example input is {got}; expected a floating-point tensor [batch, ...] with at least one sample"
        )
    dtype = next(p.dtype for p in model.parameters())
    sample = example.detach().cpu().to(dtype if dtype.is_floating_point else torch.float32)[:2].clone()
    return sample if len(sample) == 2 else sample.repeat(2, *[1] * (sample.ndim - 1))


def _twin(model: nn.Module) -> nn.Module:
    """A copy in eval mode on the CPU, in which autograd sees every parameter."""
    try:
        twin = copy.deepcopy(model)
    except Exception as error:  # deepcopy raises whatever the parts raise
        raise SubnetSearchError(
            f"the network cannot be copied: {error}; expected plain modules and parameters"
        ) from error
    twin.cpu().eval()
    for parameter in twin.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_()
    return twin


def _run(twin: nn.Module, sample: Tensor) -> Tensor:
    try:
        logits = twin(sample)
    except Exception as error:  # a user's forward raises what it likes
        raise SubnetSearchError(
            f"the network cannot be traced: its forward raised {type(error).__name__} on input of shape {tuple(sample.shape)}: {error}; give an example of the shape it was trained on"
        ) from error
    return _checked(logits, sample, "output")


@torch.no_grad()
def _check_training(model: nn.Module, sample: Tensor) -> None:
    """Raises where the output is something else in training mode, such as logits with those of auxiliary classifiers."""
    learner = _twin(model).train()
    try:
        logits = learner(sample.clone())
    except Exception:  # two samples may be too few for statistics ("Expected more than 1 value per channel")
        return
    _checked(logits, sample, "output in training mode")


def _checked(logits: object, sample: Tensor, label: str) -> Tensor:
    """The logits, where that is what they are."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(sample):
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise SubnetSearchError(
            f"the network's {label} is {got} for input of shape {tuple(sample.shape)}; expected logits [batch, class]: wrap the network so that it returns them alone"
        )
    return logits


def _owned(graph: GroupGraph, misplaced: Collection[str]) -> str:
    """In words, the first layer that each member has for itself, whatever is masked, if rows are misplaced there."""
    if found := [name for name in graph.norms if name in misplaced]:
        return f"the batch norm {found[0]!r}"
    return f"the classifier {graph.head!r}" if graph.head in misplaced else ""


def _norms(model: nn.Module) -> tuple[str, ...]:
    kind = nn.modules.batchnorm._BatchNorm
    return tuple(
        name for name, module in model.named_modules() if isinstance(module, kind) and module.track_running_stats
    )


def _head(atoms: Atoms) -> str | None:
    """Name of the linear layer that writes the logits, None where something else does."""
    op = atoms.trace.ops[atoms.trace.output[0]]
    return op.module if isinstance(op.layer, nn.Linear) else None


def _resizes(atoms: Atoms, labels: dict[int, tuple[str, int]]) -> tuple[ResizeCall, ...]:
    """The padding and splitting calls along the channels in whose result some group lives."""
    found = []
    for number, i in enumerate(atoms.trace.calls):
        if i is None or i not in atoms.maps:
            continue
        op, axis = atoms.trace.ops[i], atoms.maps[i][0]
        left = right = 0
        if op.kind == "ConstantPadNd":
            amounts, place = op.saved("pad"), 2 * (len(op.shapes[0]) - 1 - axis)
            left, right = amounts[place : place + 2] or (0, 0)
            if min(left, right) < 0 or not (left or right):
                continue
        elif op.kind not in SPLITS or op.saved("dim") % len(op.shapes[0]) != axis:
            continue  # a padding with pixels of the image, which is never along the channels, or a split elsewhere
        results = [atoms.positions(("result", i, n)).tolist() for n in range(len(op.shapes))]
        names = tuple(tuple(labels.get(position) for position in result) for result in results)
        if any(label is not None for result in names for label in result):
            found.append(ResizeCall(number, axis, left, right, names))
    return tuple(found)
