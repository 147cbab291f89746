import re
import shlex
from pathlib import Path

import pytest

import subnet_search.cli as cli

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_quickstart_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.count("tensor(") == 3
    assert (tmp_path / "my-ensemble" / "manifest.json").is_file()


COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in re.findall(r"^subnet-search (.*)$", block.replace("\\\n", " "), re.MULTILINE)
    if not line.startswith("export")  # which begins a run where there is none
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_commands_are_understood_and_say_which_file_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    said = capsys.readouterr().err
    assert re.search("not found|found nothing|holds no|no such|is no |does not exist|names no|no study", said), said


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert links
    assert [link for link in links if not (Path(__file__).parents[1] / link).exists()] == []
