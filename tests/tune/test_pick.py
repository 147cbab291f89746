import shutil
from dataclasses import replace
from functools import partial

import pytest

import subnet_search.cli as cli
from subnet_search.backbones import load_backbone
from subnet_search.errors import SubnetSearchError
from subnet_search.export import load_ensemble
from subnet_search.files import write_bytes
from subnet_search.run_folder import MASKS, RunFolder
from subnet_search.tune.pick import choose, pick, settings_of_run
from subnet_search.tune.points import read_points


@pytest.fixture
def points(made_up_study):
    return read_points(made_up_study(64))


def test_the_best_of_those_that_meet_the_conditions_is_chosen(points) -> None:
    chosen = choose(points, "macs<=1.5")
    meeting = [p for p in points.full if p.values["macs"] <= 1.5]
    assert chosen.values["nll"] == min(p.values["nll"] for p in meeting)
    assert chosen in points.front()


def test_an_objective_that_is_named_counts_first(points) -> None:
    chosen = choose(points, "nll<=0.32,macs")
    assert chosen.values["macs"] == min(p.values["macs"] for p in points.full if p.values["nll"] <= 0.32)
    assert chosen in points.front()
    assert choose(points, "error_correlation") == min(points.full, key=lambda p: p.values["error_correlation"])


def test_conditions_on_metrics_and_on_other_objectives_count_too(points) -> None:
    figures = {p.number: p.metrics["cal/ECE"] for p in points.full}
    bound = sorted(figures.values())[2]
    best = min((p for p in points.full if figures[p.number] <= bound), key=lambda p: p.values["nll"])
    assert choose(points, f"cal/ECE<={bound}") == choose(points, f"ece<={bound}") == best


def test_trials_that_stopped_early_are_never_chosen(points) -> None:
    early = next(p for p in points.points if not p.full)
    perfect = replace(early, values=dict.fromkeys(points.lower, 0.0))
    assert choose(replace(points, points=(perfect, *points.points)), "macs").full


def test_the_nearest_is_named_where_nothing_meets_the_conditions(points) -> None:
    with pytest.raises(
        SubnetSearchError, match=r"none of the 18 trials in full meets this; the nearest is trial \d+: nll"
    ) as raised:
        choose(points, "nll<=0.25,macs<=0.8")
    words = str(raised.value)
    number = int(words.split("nearest is trial ")[1].split(":")[0])
    spans = [max(c) - min(c) for c in zip(*((p.values["nll"], p.values["macs"]) for p in points.full), strict=True)]
    distances = {
        p.number: max(0, p.values["nll"] - 0.25) / spans[0] + max(0, p.values["macs"] - 0.8) / spans[1]
        for p in points.full
    }
    assert distances[number] == min(distances.values())
    assert "too high" in words
    assert "There are nll from" in words


@pytest.mark.parametrize(
    ("prefer", "words"),
    [
        (
            "cls/NLL_TS<=0.3",
            "no trial has a figure cls/NLL_TS on the validation images; expected one of nll, error, ece",
        ),
        ("ood_auroc>=0.9", "no trial has a figure ood_auroc"),
        ("price<=1", "nothing is called 'price'"),
    ],
)
def test_what_nobody_has_is_explained(points, prefer: str, words: str) -> None:
    with pytest.raises(SubnetSearchError, match=words):
        choose(points, prefer)


def test_without_a_trial_in_full_there_is_nothing_to_choose(made_up_study) -> None:
    with pytest.raises(SubnetSearchError, match="no trial that was trained in full yet"):
        choose(read_points(made_up_study(0)), "nll")


def test_the_run_has_the_settings_of_the_trial(points, tmp_path) -> None:
    chosen = choose(points, "macs<=1.5")
    config = settings_of_run(chosen, tmp_path)
    assert config.out == tmp_path
    assert config.members == chosen.params["members"]
    assert config.budget.budget == chosen.params["budget"]
    assert config.search.algorithm == chosen.params["algorithm"]


@pytest.fixture(scope="module")
def finished(tiny, run, tmp_path_factory):
    """A study of a few trials, trained for real, and its points."""
    config = tiny(tmp_path_factory.mktemp("finished") / "study", trials=4)
    return config, read_points(run(config))


def test_the_trial_is_run_in_full_with_its_masks_and_exported(finished, network, few, tmp_path) -> None:
    config, found = finished
    picked = pick(config.out, "nll", tmp_path / "picked", backbone=network, splits=few)
    assert picked.point == choose(found, "nll")
    assert picked.front
    wanted = RunFolder(tmp_path / "masks")
    write_bytes(wanted.path / MASKS, (config.out / "artifacts" / picked.point.artifact).read_bytes())
    assert picked.result.masks.digest() == wanted.masks().digest()
    # without test images the figures are those of the validation images, and so the ones that the trial had
    metrics = picked.result.metrics["ensemble"]["metrics"]
    assert metrics["cls/NLL"] == pytest.approx(picked.point.metrics["cls/NLL"], rel=1e-6)
    assert metrics["ens/IoU"] == picked.point.metrics["ens/IoU"]
    loaded = load_ensemble(picked.result.folder.ensemble, network=network.model)
    assert loaded.masks.digest() == picked.result.masks.digest()


def test_picking_again_takes_up_what_is_there(finished, network, few, tmp_path) -> None:
    config, _ = finished
    first = pick(config.out, "macs", tmp_path / "picked", backbone=network, splits=few)
    exported = {path: path.read_bytes() for path in sorted(first.result.folder.ensemble.iterdir())}
    again = pick(config.out, "macs", tmp_path / "picked", backbone=network, splits=few)
    assert {path: path.read_bytes() for path in exported} == exported
    assert again.result.masks.digest() == first.result.masks.digest()


def test_masks_that_another_machine_keeps_are_searched_again(finished, network, few, tmp_path, caplog) -> None:
    config, _ = finished
    here = pick(config.out, "nll", tmp_path / "here", backbone=network, splits=few)
    elsewhere = tmp_path / "study"
    elsewhere.mkdir()
    (elsewhere / "journal.log").write_bytes((config.out / "journal.log").read_bytes())
    with caplog.at_level("WARNING", "subnet_search"):
        there = pick(elsewhere, "nll", tmp_path / "there", backbone=network, splits=few)
    assert "are searched again" in caplog.text
    assert there.result.masks.digest() == here.result.masks.digest()


@pytest.mark.parametrize("damage", [b"", b"no masks", b"half"])
def test_masks_that_are_damaged_are_searched_again(finished, network, few, tmp_path, caplog, damage: bytes) -> None:
    config, found = finished
    study = tmp_path / "study"
    shutil.copytree(config.out, study)
    kept = study / "artifacts" / choose(found, "nll").artifact
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2] if damage == b"half" else damage)
    with caplog.at_level("WARNING", "subnet_search"):
        picked = pick(study, "nll", tmp_path / "picked", backbone=network, splits=few)
    assert f"are searched again: {kept} is damaged" in caplog.text
    wanted = RunFolder(tmp_path / "masks")
    write_bytes(wanted.path / MASKS, whole)
    assert picked.result.masks.digest() == wanted.masks().digest()


def test_what_is_not_the_study_is_refused(finished, few, tmp_path) -> None:
    config, _ = finished
    other = load_backbone("digits", "random", seed=10, width=4)
    with pytest.raises(SubnetSearchError, match=r"made with another network than there is now \(network digits, "):
        pick(config.out, "nll", tmp_path / "picked", backbone=other, splits=few)
    with pytest.raises(SubnetSearchError, match="there is no study 'nowhere'"):
        pick(tmp_path / "nowhere", "nll", tmp_path / "picked")
    assert not (tmp_path / "picked").exists()


@pytest.mark.parametrize(
    ("part", "words"), [("train", "another training set than"), ("validation", "another validation set than")]
)
def test_other_images_than_those_of_the_study_are_refused_and_named(
    finished, network, few, tmp_path, part: str, words: str
) -> None:
    config, _ = finished
    others = replace(few, **{part: getattr(few, part).subset(range(36))})
    with pytest.raises(SubnetSearchError, match=words):
        pick(config.out, "nll", tmp_path / "picked", backbone=network, splits=others)
    assert not (tmp_path / "picked").exists()


def test_other_test_and_ood_images_are_the_users_choice(finished, network, few, tmp_path) -> None:
    config, _ = finished
    others = replace(few, test=few.validation.subset(range(20)), ood={"halves": few.train.subset(range(20))})
    picked = pick(config.out, "nll", tmp_path / "picked", backbone=network, splits=others)
    assert picked.result.metrics["ensemble"]["metrics"]["ood/halves/AUROC/entropy"] is not None


def test_the_command_says_what_it_chose_and_where_it_is(finished, monkeypatch, capsys, network, few, tmp_path) -> None:
    config, found = finished
    here = partial(pick, backbone=network, splits=few)
    monkeypatch.setattr(cli, "pick", here)
    cli.main(["pick", str(config.out), "--prefer", "nll", "--out", str(tmp_path / "picked")])
    printed = capsys.readouterr().out
    said = " ".join(printed.split())
    assert f"trial {choose(found, 'nll').number} " in said
    assert "MACs / dense" in said
    assert f"report: {tmp_path / 'picked' / 'report.html'}" in printed.replace("\n", "")
    assert (tmp_path / "picked" / "ensemble" / "manifest.json").is_file()
    with pytest.raises(SystemExit, match="2"):
        cli.main(["pick", str(config.out), "--prefer", "nll<=0", "--out", str(tmp_path / "other")])
    assert "the nearest is trial" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "other").exists()
