"""Channel groups there and back."""

import json

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.export.graph_json import graph_from_json, graph_to_json
from subnet_search.groups import ChannelGroup, GroupGraph, LeftWhole, ResizeCall, Slice

INDICES = st.one_of(
    st.builds(
        lambda start, channels, run: tuple(tuple(range(start + c * run, start + (c + 1) * run)) for c in range(channels)),
        st.integers(0, 50),
        st.integers(1, 20),
        st.integers(1, 9),
    ),
    st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=3).map(tuple), min_size=1, max_size=6).map(tuple),
)  # fmt: skip
LABELS = st.lists(st.one_of(st.none(), st.tuples(st.sampled_from("ab"), st.integers(0, 9))), max_size=12).map(tuple)


def graph_of(
    index: tuple[tuple[int, ...], ...], labels: tuple[tuple[str, int] | None, ...], head: str | None = "head"
) -> GroupGraph:
    graph = nx.DiGraph()
    graph.add_node(("layer", "conv1"), macs=1_000_000_007, out=8, **{"in": 3}, depthwise=False)
    graph.add_node(("group", "conv1"), width=len(index))
    graph.add_edge(("layer", "conv1"), ("group", "conv1"), positions=8)
    places = (Slice("conv1", "out", index), Slice("fc", "in", index))
    return GroupGraph(
        (ChannelGroup("conv1", len(index), "stream", places, places[:1]),),
        (LeftWhole("conv9", 7, "it has a single channel"),),
        graph,
        ("bn1",),
        head,
        10,
        (3, 32, 32),
        (ResizeCall(1, 1, 2, 3, (labels, ())),),
    )


@settings(deadline=None)
@given(INDICES, LABELS, st.sampled_from(["head", None]))
def test_groups_come_back_as_they_were(index, labels, head) -> None:
    graph = graph_of(index, labels, head)
    back = graph_from_json(json.loads(json.dumps(graph_to_json(graph))))
    assert_equal(back, graph)


@pytest.mark.parametrize("name", ["resnet", "plain"])
def test_groups_of_real_networks_come_back(name, request) -> None:
    graph = request.getfixturevalue(name).graph
    assert_equal(graph_from_json(json.loads(json.dumps(graph_to_json(graph)))), graph)


def test_regular_indices_and_labels_take_little_room() -> None:
    index = tuple(tuple(range(49 * c, 49 * c + 49)) for c in range(512))
    labels = (None,) * 8 + tuple(("a", c) for c in range(500)) + (None,) * 8
    assert len(json.dumps(graph_to_json(graph_of(index, labels)))) < 1500


def assert_equal(back: GroupGraph, graph: GroupGraph) -> None:
    for field in ("groups", "left_whole", "norms", "head", "classes", "example_shape", "resizes"):
        assert getattr(back, field) == getattr(graph, field)
    assert list(back.graph.nodes(data=True)) == list(graph.graph.nodes(data=True))
    assert list(back.graph.edges(data=True)) == list(graph.graph.edges(data=True))
    assert back.layer_costs == graph.layer_costs
