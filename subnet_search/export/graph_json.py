"""Channel groups as JSON, so that an exported ensemble is rebuilt without tracing its network again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx

from subnet_search.groups import Branch, ChannelGroup, GroupGraph, LeftWhole, ResizeCall, Slice

Index = tuple[tuple[int, ...], ...]
Label = tuple[str, int] | None


def graph_to_json(graph: GroupGraph) -> dict[str, Any]:
    """Returns the groups, and all that is known of them, as plain JSON values; `graph_from_json` is its inverse."""
    nodes = list(graph.graph.nodes)
    number = {node: i for i, node in enumerate(nodes)}
    return {
        "groups": [
            {
                "name": group.name,
                "width": group.width,
                "kind": group.kind,
                "slices": [_slice_to_json(place) for place in group.slices],
                "sites": [_slice_to_json(place) for place in group.sites],
            }
            for group in graph.groups
        ],
        "left_whole": [{"name": left.name, "width": left.width, "reason": left.reason} for left in graph.left_whole],
        # networkx has its own form of this, but the names in it differ between the versions that we allow
        "nodes": [[*node, dict(graph.graph.nodes[node])] for node in nodes],
        "edges": [[number[u], number[v], dict(data)] for u, v, data in graph.graph.edges(data=True)],
        "norms": list(graph.norms),
        "head": graph.head,
        "classes": graph.classes,
        "example_shape": list(graph.example_shape),
        "resizes": [
            {
                "number": call.number,
                "axis": call.axis,
                "left": call.left,
                "right": call.right,
                "labels": [_runs(labels) for labels in call.labels],
            }
            for call in graph.resizes
        ],
        "branches": [{"site": branch.site, "layers": list(branch.layers)} for branch in graph.branches],
        "order": list(graph.order),
    }


def graph_from_json(content: Mapping[str, Any]) -> GroupGraph:
    """Makes the groups of what `graph_to_json` returned.

    Raises:
        KeyError, TypeError, ValueError, IndexError: where the content is something else; the caller knows its file.
    """
    graph = nx.DiGraph()
    nodes = [(str(kind), str(name)) for kind, name, _ in content["nodes"]]
    for node, (_, _, data) in zip(nodes, content["nodes"], strict=True):
        graph.add_node(node, **data)
    for source, target, data in content["edges"]:
        graph.add_edge(nodes[source], nodes[target], **data)
    return GroupGraph(
        groups=tuple(
            ChannelGroup(
                name=group["name"],
                width=group["width"],
                kind=group["kind"],
                slices=tuple(_slice_from_json(place) for place in group["slices"]),
                sites=tuple(_slice_from_json(place) for place in group["sites"]),
            )
            for group in content["groups"]
        ),
        left_whole=tuple(LeftWhole(left["name"], left["width"], left["reason"]) for left in content["left_whole"]),
        graph=graph,
        norms=tuple(content["norms"]),
        head=content["head"],
        classes=content["classes"],
        example_shape=tuple(content["example_shape"]),
        resizes=tuple(
            ResizeCall(
                call["number"],
                call["axis"],
                call["left"],
                call["right"],
                tuple(_labels(runs) for runs in call["labels"]),
            )
            for call in content["resizes"]
        ),
        branches=tuple(Branch(branch["site"], tuple(branch["layers"])) for branch in content["branches"]),
        order=tuple(content["order"]),
    )


def _slice_to_json(place: Slice) -> dict[str, Any]:
    return {"module": place.module, "side": place.side, "index": _index_to_json(place.index)}


def _slice_from_json(content: Mapping[str, Any]) -> Slice:
    return Slice(content["module"], content["side"], _index_from_json(content["index"]))


def _index_to_json(index: Index) -> dict[str, int] | str:
    """Nearly all indices count on from a first position; spelled out, a large network's would fill megabytes."""
    if index and index[0]:
        start, run = index[0][0], len(index[0])
        if index == _counted(start, len(index), run):
            return {"start": start, "channels": len(index), "positions": run}
    return " ".join("+".join(map(str, places)) for places in index)


def _index_from_json(content: Mapping[str, int] | str) -> Index:
    if isinstance(content, str):
        return tuple(tuple(int(place) for place in places.split("+")) for places in content.split(" "))
    return _counted(content["start"], content["channels"], content["positions"])


def _counted(start: int, channels: int, run: int) -> Index:
    """Channel c at the positions from start + c · run to start + (c + 1) · run."""
    return tuple(tuple(range(start + c * run, start + (c + 1) * run)) for c in range(channels))


def _runs(labels: Sequence[Label]) -> list[list[Any]]:
    """Shortens labels to `[group, first channel, count]`, group None where positions are whole."""
    runs: list[list[Any]] = []
    for label in labels:
        name, channel = (None, 0) if label is None else label
        if runs and runs[-1][0] == name and (name is None or runs[-1][1] + runs[-1][2] == channel):
            runs[-1][2] += 1
        else:
            runs.append([name, channel, 1])
    return runs


def _labels(runs: Sequence[Sequence[Any]]) -> tuple[Label, ...]:
    return tuple(None if name is None else (name, first + i) for name, first, count in runs for i in range(count))
