"""What a report consists of, before it is HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from matplotlib.figure import Figure

Verdict = Literal["better", "worse", "even", "absent"]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Tile:
    """One figure above the fold, with plain words.

    Attributes:
        title: What it is.
        words: What it means, for somebody who has never heard of it, and which direction is better.
        values: Name of the network → its figure in words; the last is the one that the report is about.
        verdict: How the last compares to the first.
        badge: The verdict in words.
        note: What must be said with it, such as how much is luck; maybe nothing.
    """

    title: str
    words: str
    values: Mapping[str, str]
    verdict: Verdict
    badge: str
    note: str = ""


@dataclass(frozen=True)
class Drawing:
    """A figure, its words and its data.

    Attributes:
        name: Name of its files.
        title: What it shows.
        words: How to read it.
        alt: What it says, for somebody who cannot see it.
        figure: The drawing.
        data: What is drawn, a mapping for each line of the CSV file; the first has all columns.
        narrow: The same for a phone; None where the figure is narrow already. With one, `figure` takes the whole width.
        paper: Whether it stays on white in the dark, because its colours are a scale.
    """

    name: str
    title: str
    words: str
    alt: str
    figure: Figure
    data: Rows
    narrow: Figure | None = None
    paper: bool = False

    @property
    def wide(self) -> bool:
        """Whether the figure takes the whole width of the page."""
        return self.narrow is not None


@dataclass(frozen=True)
class Table:
    """Figures in columns.

    Attributes:
        caption: What they are.
        columns: Heads of the columns.
        rows: Cells; the first of each row names it.
        best: Which cells are the best of their kind, as row and column.
        name: Name of its CSV file; without one there is none.
        data: What that file holds, where the cells are figures with units or rounded; without it, the cells.
        prose: Whether the cells are sentences, not figures.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: frozenset[tuple[int, int]] = frozenset()
    name: str = ""
    data: Rows = ()
    prose: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: Its anchor.
        title: A question that it answers, or its subject.
        words: What a reader should know first.
        drawings: Its figures.
        tables: Its tables.
        missing: What is not there, and why.
    """

    name: str
    title: str
    words: str = ""
    drawings: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    missing: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        title: What was done.
        facts: Short facts about it, such as the device.
        lead: The result in a sentence or two.
        tiles: The figures above the fold.
        sections: The rest, in order.
        command: What repeats it; empty where no command does.
        command_note: What must be said with the command.
        settings: Name of each setting, its value in words, and whether it differs from the default.
        versions: Library, commit or device → what it was.
    """

    title: str
    facts: Sequence[str]
    lead: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    command: str = ""
    command_note: str = ""
    settings: Sequence[tuple[str, str, bool]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def drawings(self) -> list[Drawing]:
        """All figures, in order."""
        return [drawing for section in self.sections for drawing in section.drawings]
