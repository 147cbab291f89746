import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from subnet_search.ensemble import EnsembleConfig
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import EvaluateConfig
from subnet_search.files import write_json
from subnet_search.finetune import FinetuneConfig
from subnet_search.masks import MaskSet
from subnet_search.relevance import Relevance
from subnet_search.run_folder import CHECKPOINT, MASKS, METRICS, RELEVANCE, RunFolder
from subnet_search.search import BudgetConfig, SearchConfig
from subnet_search.settings import DataConfig, RunConfig, to_dict

INPUTS = {"network": "12", "training set": "34"}


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(out=tmp_path / "run")


@pytest.fixture
def folder(config: RunConfig) -> RunFolder:
    return RunFolder.open(config, INPUTS)


def test_settings_come_back(config, folder) -> None:
    assert folder.config() == config
    assert RunFolder.open(config, INPUTS) == folder


def test_a_check_writes_nothing(config) -> None:
    assert not RunFolder.check(config).exists()
    assert not config.out.exists()


def test_masks_and_scores_come_back(folder) -> None:
    assert (folder.masks(), folder.relevance()) == (None, None)
    masks = MaskSet({"b": torch.eye(3, 5) > 0, "a": torch.ones(3, 4) > 0}, "flow", 7, {"gap": 0.5, "exact": [True]})
    folder.save_masks(masks)
    back = folder.masks()
    assert back is not None
    assert (back.digest(), back.algorithm, back.seed, back.notes) == (masks.digest(), "flow", 7, masks.notes)
    scores = Relevance({"a": torch.rand(3, 4)}, "ig", 0.01, 0.02, 16, 1.5, ("a",))
    folder.save_relevance(scores)
    found = folder.relevance()
    assert found is not None
    assert torch.equal(found.scores["a"], scores.scores["a"])
    assert (found.criterion, found.completeness, found.completeness_image) == ("ig", 0.01, 0.02)
    assert (found.samples, found.seconds, found.groups) == (16, 1.5, ("a",))


@pytest.mark.parametrize(
    ("result", "change", "fits"),
    [
        (None, {"members": 8}, True),
        (RELEVANCE, {"members": 8}, False),
        (RELEVANCE, {"budget": BudgetConfig(1.0)}, False),
        (RELEVANCE, {"search": SearchConfig("draft")}, True),
        (RELEVANCE, {"finetune": FinetuneConfig(epochs=3)}, True),
        (MASKS, {"search": SearchConfig("draft")}, False),
        (MASKS, {"finetune": FinetuneConfig(epochs=3)}, True),
        (MASKS, {"finetune": FinetuneConfig(augment="crop")}, True),
        (RELEVANCE, {"ensemble": EnsembleConfig(trunk=0.5)}, True),
        (MASKS, {"ensemble": EnsembleConfig(trunk=0.5)}, False),
        (MASKS, {"ensemble": EnsembleConfig(trunk=None, norm="shared")}, True),
        (CHECKPOINT, {"finetune": FinetuneConfig(epochs=3)}, False),
        (METRICS, {"finetune": FinetuneConfig(epochs=3)}, False),
        (METRICS, {"images": DataConfig(data="npz:a")}, False),
        (METRICS, {"images": DataConfig(test="npz:a", ood=())}, True),
        (METRICS, {"evaluate": EvaluateConfig(batch_size=3)}, True),
    ],
)
def test_only_settings_that_have_gone_into_nothing_may_change(config, folder, result, change, fits) -> None:
    if result:
        (folder.path / result).touch()
    other = replace(config, **change)
    if fits:
        assert RunFolder.open(other, INPUTS).config() == other
    else:
        with pytest.raises(
            SubnetSearchError, match=rf"holds a run with other settings: {next(iter(change))}.* there, "
        ):
            RunFolder.open(other, INPUTS)
        assert folder.config() == config


def test_what_a_measured_search_has_measured_with_may_not_change(config, folder) -> None:
    measured = replace(config, search=SearchConfig("best-of-n"))
    folder = RunFolder.open(measured, INPUTS)
    (folder.path / MASKS).touch()
    with pytest.raises(SubnetSearchError, match=r"finetune.augment: none there, crop asked for"):
        RunFolder.check(replace(measured, finetune=FinetuneConfig(augment="crop")))
    assert RunFolder.check(replace(measured, finetune=FinetuneConfig(epochs=3))) == folder


def test_the_message_names_both_values(config, folder) -> None:
    (folder.path / MASKS).touch()
    with pytest.raises(
        SubnetSearchError, match=r"settings: members: 4 there, 8 asked for; search.cover: False there, True"
    ):
        RunFolder.check(replace(config, members=8, search=SearchConfig(cover=True, lambda_overlap=None)))


def test_results_of_other_inputs_are_refused(config, folder) -> None:
    assert RunFolder.open(config, {**INPUTS, "network": "56"}) == folder  # nothing is there yet
    (folder.path / MASKS).touch()
    with pytest.raises(SubnetSearchError, match="holds results for another network, under the same settings"):
        RunFolder.open(config, INPUTS)


def test_folders_of_others_are_left_alone(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for out in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(SubnetSearchError, match="exists and holds no run of this tool"):
            RunFolder.open(RunConfig(out=out), INPUTS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_place_that_cannot_be_written_is_named(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SubnetSearchError, match="cannot be written"):
        RunFolder.open(RunConfig(out=tmp_path / "file" / "run"), INPUTS)


@pytest.mark.parametrize("content", ["{", '"text"', "\xff"])
def test_damaged_settings_are_named(config, folder, content) -> None:
    folder.config_file.write_text(content, encoding="latin-1")
    with pytest.raises(SubnetSearchError, match=r"config.json.*(cannot be read|expected a mapping)"):
        RunFolder.check(config)


@pytest.mark.parametrize("kept", [-3, 0, 20])
def test_damaged_results_are_named(folder, kept) -> None:
    folder.save_masks(MaskSet({"a": torch.ones(2, 3) > 0}, "flow"))
    path = folder.path / MASKS
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SubnetSearchError, match=r"masks.safetensors is damaged .*delete it"):
        folder.masks()


def test_figures_count_for_their_own_settings_and_inputs_only(config, folder) -> None:
    assert folder.metrics(config, INPUTS) is None
    settings = {**to_dict(config), "inputs": INPUTS}
    rows = {"dense": {"settings": settings}, "ensemble": {"settings": settings}}
    write_json(folder.metrics_file, rows)
    assert folder.metrics(config, INPUTS) == rows
    assert folder.metrics(replace(config, images=DataConfig(ood=())), INPUTS) is None
    assert folder.metrics(config, {**INPUTS, "test set": "1"}) is None


def test_the_log_grows_and_names_what_ended_a_run(folder) -> None:
    log = logging.getLogger("subnet_search")
    level = log.level

    def stage(words: str, problem: BaseException | None = None) -> None:
        with folder.logged():
            log.info(words)
            if problem:
                raise problem

    log.info("before")
    stage("one")
    with pytest.raises(KeyboardInterrupt):
        stage("two", KeyboardInterrupt())
    lines = (folder.path / "log.txt").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["one", "two", "stopped by KeyboardInterrupt: "]
    assert (log.level, log.handlers, log.propagate) == (level, [], True)


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """What comes to a handler of the root that takes all that comes."""
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    yield records
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize(("level", "told"), [(logging.WARNING, {"two"}), (logging.INFO, {"one", "two", "one more"})])
def test_a_log_that_others_have_set_up_gets_what_it_would_get_without_the_file(folder, heard, monkeypatch, level, told) -> None:  # fmt: skip
    monkeypatch.setattr(logging.getLogger(), "level", level)
    log = logging.getLogger("subnet_search")
    with folder.logged():
        log.info("one")
        log.warning("two")
        with folder.logged():
            log.info("one more")
    assert sorted(heard) == sorted(told)
    assert (log.handlers, log.propagate) == ([], True)


def test_a_warning_is_printed_where_nobody_has_set_up_logging(folder, monkeypatch, capsys) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log = logging.getLogger("subnet_search")
    with folder.logged(), folder.logged():
        log.info("one")
        log.warning("two")
    assert capsys.readouterr().err == "two\n"


def test_a_stop_is_not_told_to_handlers_that_an_imported_package_installs(folder, heard) -> None:
    with pytest.raises(SubnetSearchError, match="no"), folder.logged():
        raise SubnetSearchError("no")
    assert heard == []
    assert "stopped by SubnetSearchError: no" in (folder.path / "log.txt").read_text()
