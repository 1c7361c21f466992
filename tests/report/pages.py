"""Checks of a page that any page must pass."""

import itertools
import re
from html.parser import HTMLParser

from vlbeit_jax.report.markup import VOID


class Checked(HTMLParser):
    """Reads a page strictly: what is open is closed in order, and nothing comes from outside."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.ids, self.links, self.pictures, self.levels = [], [], [], 0, []
        self.cells: list[int] = []
        self.columns = 0
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        assert len(given) == len(attrs), f"<{tag}> has an attribute twice: {attrs}"
        if "id" in given:
            self.ids.append(given["id"])
        for name in ("src", "srcset", "href"):
            if name in given and not given[name].startswith("data:image/png;base64,"):
                self.links.append(given[name])
        if tag == "img":
            self.pictures += 1
            assert given["alt"].strip(), "a picture without words"
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "table":
            self.columns = 0
        if tag == "tr":
            self.cells.append(0)
        if tag in ("td", "th"):
            self.cells[-1] += 1
            assert tag == "td" or given.get("scope") in ("row", "col"), "a head of what?"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes {self.open}"
        if tag == "tr":
            self.columns = self.columns or self.cells[-1]
            assert self.cells[-1] == self.columns, "a row with other cells than the head"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "title"):
            self.text.append(data)

    @property
    def words(self) -> str:
        """The page as it is read."""
        return re.sub(r"\s+", " ", "".join(self.text))


def checked(page: str) -> Checked:
    """Reads a page, and checks its links and headings."""
    found = Checked(page)
    assert len(set(found.ids)) == len(found.ids), "an id twice"
    assert all(link.startswith("#") and link[1:] in found.ids for link in found.links), found.links
    assert found.levels[0] == 1 and found.levels.count(1) == 1
    steps = itertools.pairwise(found.levels)
    assert all(after <= before + 1 for before, after in steps), "a heading level is left out"
    assert page.startswith("<!doctype html>\n<html lang=") and "<script" not in page
    return found
