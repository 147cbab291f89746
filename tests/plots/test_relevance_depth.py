from subnet_search.plots.relevance_depth import GroupRelevance, relevance_depth


def test_both_panels_show_the_groups_in_order() -> None:
    groups = [GroupRelevance(f"layer{k}", 0.0, 0.1 * k, 0.5, 0.5, 0.6 + k / 100) for k in range(30)]
    upper, lower = relevance_depth(groups, "ig").axes
    assert upper.get_yscale() == "log"
    (median,) = upper.lines
    assert list(median.get_ydata())[1:] == [0.1 * k for k in range(1, 30)]
    assert 0 < median.get_ydata()[0] < 0.1  # zero has no place on the axis
    share, kept = lower.lines
    assert list(share.get_ydata()) == [0.6 + k / 100 for k in range(30)]
    assert set(kept.get_ydata()) == {0.5}
    names = [label.get_text() for label in lower.get_xticklabels()]
    assert (names[0], names[-1]) == ("layer0", "layer29")
    assert len(names) <= 14
    assert upper.get_ylabel() == "relevance (ig)"
