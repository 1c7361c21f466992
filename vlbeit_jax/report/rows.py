"""Rows of a batch on a page, as the network sees them."""

from collections.abc import Sequence

from vlbeit_jax.data.pieces import SIGNS, Fate
from vlbeit_jax.report.markup import Child, Html, definitions, element, figure, join, note, picture
from vlbeit_jax.report.panels import picture as as_png
from vlbeit_jax.tasks.reading import Shown, Word

SIDE = 128  # Pixels of a picture on the page, at least.


def row_legend() -> Html:
    """Returns how masked texts are read."""
    return note(
        "A box is a word piece that the network has to predict, and shows the right one. ? means "
        "that it is hidden from the network, ≠ that another piece replaces it, = that it is left "
        "as it was. Grey patches are hidden."
    )


def row_cards(rows: Sequence[Shown]) -> Html:
    """Returns a card per row: its pictures, its words with their targets, and facts."""
    return element("ul", (_card(row, number) for number, row in enumerate(rows, 1)), class_="cards")


def _card(row: Shown, number: int) -> Html:
    shown = [
        figure(picture(as_png(image), f"Row {number}, {title}", width=SIDE, height=SIDE), title)
        for title, image in row.pictures.items()
    ]
    strip = element("div", shown, class_="strip") if shown else None
    text = element("p", _text(row.words), class_="text") if row.words else None
    facts = definitions(row.facts.items()) if row.facts else None
    return element("li", strip, text, facts, class_="card")


def _text(words: Sequence[Word]) -> Html:
    parts: list[Child] = []
    for word in words:
        if word.truth is None or word.fate is None:
            parts.append(word.seen.in_text)
            continue
        sign = SIGNS[word.fate]
        if word.fate is Fate.REPLACED:
            sign = f"{word.seen.alone} {sign}"
        # In the text as it was, a space stands before a piece that begins a word.
        parts.append(" " if word.truth.starts_word else "")
        parts.append(element("mark", f"{sign} {word.truth.alone}"))
    return join(parts)
