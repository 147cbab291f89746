"""What the documentation says is tried out: it is built strictly, its examples run, and they print what it says."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import subnet_search

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "notebooks" / "docs").glob("*.md"))
BLOCK = re.compile(r"```(python|text)\n(.*?)```\n", re.DOTALL)
EXPORTING = [
    "subnet_search",
    *(f"subnet_search.{m.name}" for m in pkgutil.iter_modules(subnet_search.__path__) if m.ispkg),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages."""
    folder = tmp_path_factory.mktemp("documentation") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def documented(site: Path) -> set[str]:
    """The names that the reference has an entry for: Sphinx's inventory, four lines of text and then a zlib stream."""
    content = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split(" ")[0] for line in zlib.decompress(content).decode().splitlines()}


def test_it_is_built_without_a_warning_and_fetches_nothing(site: Path) -> None:
    text = (site / "index.html").read_text()
    assert "knows when it does not know" in text
    fetched = re.findall(r'<(?:link|script|img)[^>]+(?:href|src)="(https?://[^"]+)"', text)
    assert [address for address in fetched if 'rel="canonical"' not in address] == []


def test_the_reference_has_every_public_name(site: Path) -> None:
    known, missing = documented(site), []
    for package in EXPORTING:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", ()):
            found = getattr(module, name)
            if inspect.isclass(found) or inspect.isfunction(found):
                own = {f"{package}.{name}", f"{found.__module__}.{found.__qualname__}"}
                missing += [] if own & known else [f"{package}.{name}"]
    assert missing == []


def test_tables_come_from_the_benchmarks(site: Path) -> None:
    page = (site / "budget" / "index.html").read_text()
    assert "<!-- table" not in page
    assert page.count("<table>") >= 2
    assert "masksembles" in page


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in page.read_text()], ids=lambda page: page.stem
)
def test_the_examples_run_and_print_what_the_page_says(
    page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    printed = ""
    for kind, content in BLOCK.findall(page.read_text()):
        if kind == "python":
            exec(compile(content, page.name, "exec"), names)
            printed = capsys.readouterr().out
        else:
            assert printed == content
