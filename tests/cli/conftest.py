"""The command line in a folder of its own, and a run that is finished."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import subnet_search.cli as cli

_TINY = ["--members=3", "--relevance.samples=16", "--relevance.nodes=2", "--finetune.epochs=1", "--evaluate.latency-repeats=0", "--ood", "--relevance.precision=fp32", "--finetune.precision=fp32"]  # fmt: skip


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Options of a run that takes a second."""
    return _TINY


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which the commands are started; what they leave there is seen."""
    folder = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(cli.console, "width", 160)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests leave it as it is."""
    out = tmp_path_factory.mktemp("finished") / "run"
    cli.main(["run", "--out", str(out), *_TINY])
    return out


def _contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def contents() -> Callable[[Path], dict[str, str]]:
    """Gives the files below a folder and their digests."""
    return _contents


@pytest.fixture
def refuses(capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Exit code 2 with the message, no traceback, and the folder as it was before."""

    def check(arguments: Sequence[str], message: str, folder: Path) -> None:
        before = _contents(folder)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main(list(arguments))
        assert stopped.value.code == 2
        captured = capsys.readouterr()
        # tyro breaks lines and draws a box around what it finds itself
        text = " ".join((captured.out + captured.err).replace("│", " ").split())
        assert message in text
        assert "Traceback" not in text
        assert _contents(folder) == before

    return check
