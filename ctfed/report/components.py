"""What a page is made of. Each component is data; its look is the template of the same name in templates/blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from markupsafe import Markup

LOOKED_UP = 3  # rows; a shorter table is read at a glance
Level = Literal["plain", "good", "note", "warning", "danger"]


@dataclass(frozen=True)
class Headline:
    """One large number: what it is, its value in words, and what it rests on."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """The box at the head of a report: one paragraph and up to a few headline numbers.

    Args:
        summary: a paragraph in plain words.
        headlines: the numbers to carry away.
        level: 'plain' for a heading box; 'good', 'warning' or 'danger' for a judgement.
        label: the judgement in a word ('passed'), because colour alone says nothing to many readers.
        rule: the rule behind the judgement, printed with it.
    """

    kind: ClassVar[str] = "verdict"
    summary: str
    headlines: tuple[Headline, ...] = ()
    level: Level = "plain"
    label: str = ""
    rule: str = ""


@dataclass(frozen=True)
class Prose:
    """Paragraphs of text; role 'basis' is the small print that says what the numbers were computed from."""

    kind: ClassVar[str] = "prose"
    paragraphs: tuple[str, ...]
    role: Literal["body", "basis"] = "body"


@dataclass(frozen=True)
class Notice:
    """A box that a reader must not miss (warning, danger), or a remark (note)."""

    kind: ClassVar[str] = "notice"
    level: Level
    heading: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Definitions:
    """Terms and their values, in order; a value may hold several lines."""

    kind: ClassVar[str] = "definitions"
    items: tuple[tuple[str, str | tuple[str, ...]], ...]


@dataclass(frozen=True)
class Column:
    """A column's heading; numeric columns are aligned at the right, the others may wrap."""

    name: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A table in its own scroll box.

    Args:
        caption: what the table shows.
        columns: one Column for each cell of a row; the first is the row's heading.
        rows: cells as they are printed.
        note: what a reader needs beside it.
        folded: shown only on request, as a table of more than a screen should be; also sortable, if it has more than
            three rows, for who unfolds a table looks for something.
        sortable: a click on a heading sorts the rows, where scripts are on; a table of more than ten rows then also
            has a field that filters them.

    Raises:
        ValueError: a row has another number of cells than there are columns.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    folded: bool = False
    sortable: bool = False

    @property
    def live(self) -> bool:
        """Whether its rows can be sorted and filtered."""
        return len(self.rows) > 1 and (self.sortable or (self.folded and len(self.rows) > LOOKED_UP))

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.caption!r}: row {index} has {len(row)} cells for {len(self.columns)}")


@dataclass(frozen=True)
class Chart:
    """A figure with its data: a picture that cannot be checked is not shown.

    Args:
        svg: from a function of the figures modules; it carries its own title and description for a screen reader.
        caption: what is to be seen, the lines and the intervals named.
        data: the numbers that the picture was drawn from.
    """

    kind: ClassVar[str] = "chart"
    svg: Markup
    caption: str
    data: Table

    @property
    def unfolding(self) -> Table:
        """The data as they stand under the figure: shown on request."""
        return replace(self.data, folded=True)


@dataclass(frozen=True)
class Pictures:
    """Raster pictures side by side, each under its name.

    Args:
        items: name and source of each; the source is a data URI, because a page needs nothing beside it.
        alt: what they show, for a screen reader; the name follows it.
        caption: what is to be seen.
    """

    kind: ClassVar[str] = "pictures"
    items: tuple[tuple[str, str], ...]
    alt: str
    caption: str


Block = Verdict | Prose | Notice | Definitions | Table | Chart | Pictures


@dataclass(frozen=True)
class Section:
    """A heading that can be linked to (``key`` is its anchor) and what stands under it."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A whole report: title, the line under it, what comes before the table of contents, and the sections."""

    title: str
    subtitle: str
    head: tuple[Block, ...]
    sections: tuple[Section, ...]
    footer: tuple[str, ...] = ()

    @property
    def live(self) -> bool:
        """Whether a table can be sorted: then, and only then, the page has a script."""
        blocks = (*self.head, *(block for section in self.sections for block in section.blocks))
        tables = (block.unfolding if isinstance(block, Chart) else block for block in blocks)
        return any(isinstance(table, Table) and table.live for table in tables)


def not_shown(sentence: str) -> Notice:
    """The box that stands where something would stand if the results held it."""
    return Notice("note", "Not shown", (sentence,))
