"""Small helpers that make HTML; every text is escaped unless it is ``Html`` already.

A page has some tables and pictures and no logic, so a template library would add a dependency and a
second language for what these functions do.
"""

import base64
import dataclasses
import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

# Elements without content have no end tag.
VOID = {"img", "meta", "source", "br"}


class Html(str):
    """Markup, inserted as it is."""


Child = Any  # A text, a number, ``Html``, None (nothing), or an iterable of these.


def element(tag: str, /, *children: Child, **attributes: Any) -> Html:
    """Returns an element.

    Args:
      tag: name of the element.
      children: its content; texts are escaped.
      attributes: None leaves one out. An underscore at the end is dropped (``class_``), the others
        become hyphens (``aria_label``).
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    end = "" if tag in VOID else f"</{tag}>"
    return Html(f"<{tag}{given}>{join(children)}{end}")


def join(children: Iterable[Child], between: str = "") -> Html:
    """Returns children one after the other."""
    return Html(between.join(_markup(child) for child in children if child is not None))


def _markup(child: Child) -> str:
    if isinstance(child, Html):
        return child
    if isinstance(child, str):
        return html.escape(child)
    if isinstance(child, Iterable):
        return join(child)
    return html.escape(str(child))


def words(*children: Child) -> Html:
    """Returns a paragraph."""
    return element("p", *children)


def note(*children: Child) -> Html:
    """Returns a paragraph that explains, in smaller print."""
    return element("p", *children, class_="note")


def between(low: str, high: str) -> str:
    """Returns the bounds of an interval, which stay on one line."""
    return "\N{NO-BREAK SPACE}".join((low, "to", high))


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
      title: its heading, also in the list of contents.
      body: what stands below it.
    """

    title: str
    body: Sequence[Child]

    @property
    def anchor(self) -> str:
        """Returns the id of the section."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    def markup(self) -> Html:
        """Returns the section as an element."""
        heading = element("h2", self.title)
        return element("section", heading, *self.body, id=self.anchor)


def table(caption: Child, head: Sequence[str], rows: Iterable[Sequence[Child]]) -> Html:
    """Returns a table whose first column names the rows.

    On a narrow screen each row becomes a block, in which every cell repeats the head of its column.
    Some browsers then forget that it is a table, so each part states its role.

    Args:
      caption: what the table shows.
      head: of the columns.
      rows: of as many cells.
    """
    heads = (element("th", name, scope="col", role="columnheader") for name in head)
    body = (_row(head, cells) for cells in rows)
    return element(
        "table",
        element("caption", caption),
        element("thead", element("tr", heads, role="row"), role="rowgroup"),
        element("tbody", body, role="rowgroup"),
        role="table",
    )


def _row(head: Sequence[str], cells: Sequence[Child]) -> Html:
    first, *rest = cells
    named = (
        element("td", element("div", cell), role="cell", data_head=name)
        for name, cell in zip(head[1:], rest, strict=True)
    )
    return element("tr", element("th", first, scope="row", role="rowheader"), named, role="row")


def definitions(entries: Iterable[tuple[Child, Child]]) -> Html:
    """Returns a list of terms with their meaning."""
    pairs = (
        element("div", element("dt", term), element("dd", meaning)) for term, meaning in entries
    )
    return element("dl", pairs)


def picture(png: bytes, alt: str, *, dark: bytes | None = None, **attributes: Any) -> Html:
    """Returns an embedded picture.

    Args:
      png: the file.
      alt: what the picture shows, in words.
      dark: the file for dark screens; None: the same.
      attributes: of the element.
    """
    image = element("img", src=data_url(png), alt=alt, **attributes)
    if dark is None:
        return image
    media = "screen and (prefers-color-scheme: dark)"
    return element("picture", element("source", srcset=data_url(dark), media=media), image)


def figure(shown: Child, caption: Child, **attributes: Any) -> Html:
    """Returns a figure with its caption."""
    return element("figure", shown, element("figcaption", caption), **attributes)


def folded(title: str, *children: Child) -> Html:
    """Returns what is shown on request."""
    return element("details", element("summary", title), *children)


def data_url(png: bytes) -> str:
    """Returns a PNG file as an address that needs no other file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def document(title: str, style: str, *body: Child) -> Html:
    """Returns a whole page."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(style)),
    )
    page = element("html", head, element("body", element("main", *body)), lang="en")
    return Html(f"<!doctype html>\n{page}\n")
