"""Draws rows of a batch into one picture, as the network sees them."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from vlbeit_jax.data.pieces import SIGNS, Fate
from vlbeit_jax.runtime.lettering import width, write
from vlbeit_jax.shapes import UInt8
from vlbeit_jax.tasks.reading import Shown, Word

WIDTH, MARGIN, LINE = 960, 10, 18  # Pixels; of the page, around rows, of a line of text.
SIDE = 112  # Pixels of a picture in the sheet.
INK, PAPER, MARK, SOFT = (31, 35, 40), (255, 255, 255), (253, 230, 138), (89, 99, 110)
Run = tuple[str, bool]  # A text, and whether it is marked.
LEGEND = (
    f"the network predicts a: '{SIGNS[Fate.HIDDEN]} a' hides it, 'b {SIGNS[Fate.REPLACED]} a' puts "
    f"b in its place, '{SIGNS[Fate.KEPT]} a' leaves it"
)


def sheet(title: str, rows: Sequence[Shown]) -> UInt8[np.ndarray, "height width 3"]:
    """Returns rows below each other: pictures at the left, words and facts beside them.

    A line below the title explains the signs of masked pieces, if there are any.

    Args:
      title: stands above them.
      rows: at least one.
    """
    masked = any(word.truth is not None for row in rows for word in row.words)
    head = [(title, INK), *([(LEGEND, SOFT)] if masked else [])]
    drawn = [_row(row) for row in rows]
    top = MARGIN + LINE * len(head)
    page = Image.new("RGB", (WIDTH, top + sum(each.height + MARGIN for each in drawn)), PAPER)
    for number, (text, colour) in enumerate(head):
        write(ImageDraw.Draw(page), (MARGIN, MARGIN // 2 + number * LINE), text, colour)
    for each in drawn:
        page.paste(each, (0, top))
        top += each.height + MARGIN
    return np.asarray(page)


def png(picture: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """Returns a picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _row(row: Shown) -> Image.Image:
    left = MARGIN + len(row.pictures) * (SIDE + MARGIN)
    lines = [*_wrapped(_runs(row.words), WIDTH - left - MARGIN)]
    facts = ", ".join(f"{name} {value}" for name, value in row.facts.items())
    above = SIDE + LINE if row.pictures else 0
    height = max(above, LINE * (len(lines) + bool(facts)), LINE)
    image = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(image)
    for number, (name, pixels) in enumerate(row.pictures.items()):
        place = MARGIN + number * (SIDE + MARGIN)
        image.paste(_square(pixels), (place, 0))
        write(draw, (place, SIDE), name, SOFT)
    for number, line in enumerate(lines):
        _write(draw, left, number * LINE, line)
    if facts:
        write(draw, (left, len(lines) * LINE), facts, SOFT)
    return image


def _square(pixels: np.ndarray) -> Image.Image:
    """Returns a picture of ``SIDE`` pixels; if it is enlarged, its pixels stay sharp."""
    how = Image.Resampling.NEAREST if len(pixels) < SIDE else Image.Resampling.BOX
    return Image.fromarray(pixels).resize((SIDE, SIDE), how)


def _runs(words: Sequence[Word]) -> list[Run]:
    """Returns the words of a text; those to predict have the right piece in a box."""
    runs: list[Run] = []
    for word in words:
        if word.truth is None or word.fate is None:
            runs.append((word.seen.in_text, False))
            continue
        sign = SIGNS[word.fate]
        if word.fate is Fate.REPLACED:
            sign = f"{word.seen.alone} {sign}"
        # A space keeps two boxes apart.
        runs += [(" ", False), (f"{sign} {word.truth.alone}", True)]
    return runs


def _wrapped(runs: Sequence[Run], room: int) -> list[list[Run]]:
    lines: list[list[Run]] = []
    used = float(room)
    for run in runs:
        size = width(run[0])
        if used + size > room:
            lines.append([])
            used = 0.0
        lines[-1].append(run)
        used += size
    return lines


def _write(draw: ImageDraw.ImageDraw, left: float, top: float, line: Sequence[Run]) -> None:
    for text, marked in line:
        size = width(text)
        if marked:
            draw.rectangle((left, top, left + size, top + LINE - 3), fill=MARK)
        write(draw, (left, top), text, INK)
        left += size
