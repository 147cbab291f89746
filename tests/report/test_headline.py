import pytest

from subnet_search.plots.summary import by_method
from subnet_search.report.comparison_headline import comparison_headline
from subnet_search.report.headline import headline


def metrics(dense: dict[str, float | None], ensemble: dict[str, float | None]) -> dict[str, dict]:
    base = {"cls/Acc": 0.9, "cls/NLL": 0.3, "cal/ECE": 0.05, "cplx/MACs": 40_000_000, "cplx/MACsRatio": 1.0}
    members = {"dense": 1, "ensemble": 4}
    own = {"dense": dense, "ensemble": ensemble}
    return {name: {"members": members[name], "metrics": {**base, **own[name]}} for name in own}


BETTER = {"cls/Acc": 0.95, "cls/NLL": 0.2, "cal/ECE": 0.02, "ood/a/AUROC/entropy": 0.9, "cplx/MACs": 80_000_000, "cplx/MACsRatio": 2.0}  # fmt: skip


def test_what_is_better_is_said_in_the_direction_of_each_figure() -> None:
    lead, tiles = headline(metrics({"ood/a/AUROC/entropy": 0.8}, BETTER), {}, None)
    assert [tile.verdict for tile in tiles] == ["better", "better", "better", "better", "worse"]
    assert [tile.badge for tile in tiles][-1] == "2.00 × dense"
    assert lead.startswith(
        "Compared to the dense network, the ensemble of 4 members is better in accuracy, likelihood (NLL), "
    )
    assert lead.endswith("2.00 times the multiplications.")
    lead, tiles = headline(metrics(BETTER, {"ood/a/AUROC/entropy": 0.8}), {}, None)
    assert [tile.verdict for tile in tiles] == ["worse", "worse", "worse", "worse", "better"]
    assert "is worse in accuracy" in lead


def test_what_may_be_luck_is_no_difference() -> None:
    luck = {"cls/Acc": (-0.01, 0.11), "cls/NLL": (-0.2, -0.01)}
    lead, tiles = headline(metrics({}, BETTER), luck, 449)
    assert (tiles[0].verdict, tiles[0].badge) == ("even", "no clear difference")
    assert tiles[0].note == "May be the luck of 449 test images."
    assert tiles[1].verdict == "better"
    assert "does not clearly differ in accuracy." in lead
    assert "held-out" not in lead


def test_figures_on_held_out_images_are_said_to_be() -> None:
    lead, tiles = headline(metrics({}, BETTER), {"cls/Acc": (-0.01, 0.11)}, 449, "held-out images")
    assert tiles[0].note == "May be the luck of 449 held-out images."
    assert "No test images were given: all figures are on the held-out images" in lead
    assert "--test" in lead


def test_what_was_not_measured_is_said_with_what_to_do() -> None:
    tile = headline(metrics({}, {}), {}, None)[1][3]
    assert (tile.verdict, tile.badge, dict(tile.values)) == ("absent", "not measured", {"dense": "–", "ensemble": "–"})
    assert "--ood NAME=SOURCE" in tile.note
    assert headline(metrics({}, {}), {}, None)[1][0].badge == "the same"


@pytest.mark.parametrize(("value", "words"), [(950.0, "950"), (41_270_000.0, "41.3 M"), (4.1e9, "4.1 G")])
def test_costs_are_written_short(value, words) -> None:
    tile = headline(metrics({"cplx/MACs": value}, {"cplx/MACs": value}), {}, None)[1][4]
    assert tile.values["dense"].replace("\N{NO-BREAK SPACE}", " ") == words
    assert tile.badge == "1.00 × dense"


def test_a_comparison_places_the_search_among_all(made_up_comparison) -> None:
    methods = by_method(made_up_comparison.rows)
    lead, tiles = comparison_headline(methods, {"packed": "no", "mimo": "seed 2: nan"})
    assert list(tiles[1].values) == ["dense", "best: search+stochastic_depth", "search"]
    assert tiles[1].badge == f"place 2 of {len(methods)}"
    assert tiles[1].verdict == "even"
    assert "11 methods on the same images, 2 seeds each." in lead
    assert "search+stochastic_depth is best" in lead
    assert "search takes place 2" in lead
    assert lead.endswith("packed could not be run. Of mimo some seeds are missing.")


def test_a_comparison_without_a_search_is_about_the_likeliest(made_up_comparison) -> None:
    few = [row for row in made_up_comparison.rows if row["method"] in ("msp", "bagging")]
    lead, tiles = comparison_headline(by_method(few), {})
    assert list(tiles[1].values) == ["dense", "bagging"]
    assert tiles[1].badge == "best of 2"
    assert "bagging is best" in lead
    one = [row for row in few if row["method"] == "msp"]
    lead, tiles = comparison_headline(by_method(one), {})
    assert lead == "One method on the same images, 1 seed each."
    assert tiles[0].badge == "best of 1"
