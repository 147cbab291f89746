from subnet_search.groups.trace import trace


def test_trace_names_layers_and_operands(padded):
    traced = trace(padded.model(), padded.example().repeat(2, 1, 1, 1))
    layers = [op.module for op in traced.ops if op.layer is not None]
    assert layers[:2] == ["conv1", "bn1"]
    assert layers[-1] == "linear"
    pads = [i for i in traced.calls if i is not None]
    assert [traced.ops[i].saved("pad") for i in pads] == [(0, 0, 0, 0, 2, 2), (0, 0, 0, 0, 4, 4)]
    for i, op in enumerate(traced.ops):
        assert all(source is None or source[0] < i for source in op.inputs)
