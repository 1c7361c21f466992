"""Draws the pictures of the README: docs/images/model-light.svg and model-dark.svg.

    python -m tools.draw_model

A row is a stream (images, texts, pairs); a column is a stage, from the masked input to its targets.
"""

import pathlib
from collections.abc import Iterable
from typing import NamedTuple

OUT = pathlib.Path(__file__).parent.parent / "docs" / "images"
WIDTH, HEIGHT = 1040, 520


class Palette(NamedTuple):
    """Colours of one scheme."""

    ground: str
    ink: str
    faint: str
    line: str
    attention: str
    vision: str
    language: str
    both: str
    hidden: str


SCHEMES = {
    "light": Palette(
        ground="#ffffff",
        ink="#1f2328",
        faint="#59636e",
        line="#8c959f",
        attention="#e7ebf0",
        vision="#ffd8a8",
        language="#b9dcff",
        both="#d9c8ff",
        hidden="#59636e",
    ),
    "dark": Palette(
        ground="#0d1117",
        ink="#e6edf3",
        faint="#9198a1",
        line="#6e7681",
        attention="#21262d",
        vision="#8a4b08",
        language="#1b4b8a",
        both="#563a9c",
        hidden="#9198a1",
    ),
}
# Top of each stream's row, and left and right of each column.
ROWS = {"image": 104, "text": 224, "pair": 344}
ROW_HEIGHT = 96
INPUT, LOWER, TOP, HEAD, TARGET = (20, 232), (256, 436), (460, 640), (664, 784), (818, 1020)
# A picture in four by four patches: sky, hill and sun, and which patches are masked.
PATCHES = ("sssy", "ssgg", "sggg", "gggg")
MASKED = {(0, 1), (1, 1), (1, 2), (2, 0), (2, 2), (3, 2)}
COLOURS = {"s": "#8fc7f0", "y": "#f6c945", "g": "#5da36b"}
PATCH = 17


def main() -> None:
    """Writes both files."""
    OUT.mkdir(parents=True, exist_ok=True)
    for name, palette in SCHEMES.items():
        (OUT / f"model-{name}.svg").write_text("\n".join(drawing(palette)) + "\n")


def drawing(p: Palette) -> Iterable[str]:
    """Yields the elements of the picture in the colours of ``p``."""
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="-apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="15" '
        f'role="img" fill="{p.ink}">'
    )
    yield (
        "<title>VL-BEiT: masked images, texts and pairs pass one Multiway Transformer, which "
        "predicts visual tokens and word pieces</title>"
    )
    yield box(0, 0, WIDTH, HEIGHT, p.ground, radius=0)
    yield from _titles(p)
    yield from _blocks(p)
    for row in (_image_row, _text_row, _pair_row):
        yield from row(p)
    yield from _targets(p)
    yield "</svg>"


def _titles(p: Palette) -> Iterable[str]:
    for (left, right), title in (
        (INPUT, "masked input"),
        (LOWER, "lower blocks"),
        (TOP, "top blocks"),
        (HEAD, "heads"),
        (TARGET, "targets"),
    ):
        yield text((left + right) / 2, 30, title, "middle", weight=600)
    yield text((LOWER[0] + TOP[1]) / 2, 52, "one Multiway Transformer", "middle", p.faint, 13)
    yield text(sum(TARGET) / 2, 52, "of the unmasked input", "middle", p.faint, 13)


def _blocks(p: Palette) -> Iterable[str]:
    """The attention that all rows share, as one box behind the experts of each column."""
    height = ROWS["pair"] + ROW_HEIGHT - ROWS["image"] + 52
    for left, right in (LOWER, TOP):
        yield box(left, ROWS["image"] - 36, right - left, height, p.attention, p.line)
        middle = (left + right) / 2
        yield text(middle, ROWS["image"] - 14, "shared self-attention", "middle", size=13)


def _image_row(p: Palette) -> Iterable[str]:
    top = ROWS["image"]
    yield from picture(INPUT[0] + 14, top + 14, p)
    yield text(INPUT[0] + 98, top + 42, "image", weight=600)
    yield text(INPUT[0] + 98, top + 62, "40% in blocks", fill=p.faint, size=13)
    yield from expert(LOWER, top + 28, "vision expert", p.vision)
    yield from expert(TOP, top + 28, "vision expert", p.vision)
    yield from arrows(top + 48, p)


def _text_row(p: Palette) -> Iterable[str]:
    top = ROWS["text"]
    yield from words(INPUT[0], top + 12, ("the", None, "over", "a", "hill"), p)
    yield text(INPUT[0] + 98, top + 60, "text", weight=600)
    yield text(INPUT[0] + 98, top + 79, "15% of its pieces", fill=p.faint, size=13)
    yield from expert(LOWER, top + 28, "language expert", p.language)
    yield from expert(TOP, top + 28, "language expert", p.language)
    yield from arrows(top + 48, p)


def _pair_row(p: Palette) -> Iterable[str]:
    top = ROWS["pair"]
    yield from picture(INPUT[0] + 14, top + 40, p)
    yield from words(INPUT[0], top + 2, (None, "rises", "over", None), p)
    yield text(INPUT[0] + 98, top + 68, "pair", weight=600)
    yield text(INPUT[0] + 98, top + 88, "40% and 50%", fill=p.faint, size=13)
    yield from expert(LOWER, top + 6, "vision expert", p.vision)
    yield from expert(LOWER, top + 52, "language expert", p.language)
    yield from expert(TOP, top + 28, "vision-language expert", p.both)
    yield from arrows(top + 48, p)


def _targets(p: Palette) -> Iterable[str]:
    left, right = HEAD
    for name, rows, colour, target, maker in (
        ("vision", ("image", "pair"), p.vision, "visual tokens", "the VQ-KD tokenizer"),
        ("language", ("text", "pair"), p.language, "word pieces", "SentencePiece"),
    ):
        for row in rows:
            shift = {"image": 28, "text": 28}.get(row, 6 if name == "vision" else 52)
            y = ROWS[row] + shift
            yield box(left, y, right - left, 38, colour, p.line)
            yield text((left + right) / 2, y + 24, f"{name} head", "middle", size=14)
            yield arrow(right + 2, y + 19, TARGET[0] - 4, y + 19, p)
            yield text(TARGET[0] + 4, y + 16, target, weight=600)
            yield text(TARGET[0] + 4, y + 34, f"from {maker}", fill=p.faint, size=13)
    note = "Experts are feed-forward networks. A token goes to the expert of its modality; "
    note += "the top blocks send all tokens of a pair to one."
    yield text(WIDTH / 2, HEIGHT - 20, note, "middle", p.faint, 13)


def picture(x: float, y: float, p: Palette) -> Iterable[str]:
    """Yields a small picture in patches, some of which are hidden."""
    for row, line in enumerate(PATCHES):
        for column, kind in enumerate(line):
            colour = p.hidden if (row, column) in MASKED else COLOURS[kind]
            where = (x + column * PATCH, y + row * PATCH)
            yield box(*where, PATCH - 1, PATCH - 1, colour, radius=1)


def words(x: float, y: float, pieces: Iterable[str | None], p: Palette) -> Iterable[str]:
    """Yields word pieces side by side; None is a hidden one."""
    for piece in pieces:
        width = 36 if piece is None else 14 + 7.4 * len(piece)
        yield box(x, y, width, 26, p.hidden if piece is None else p.ground, p.line, 4)
        if piece:
            yield text(x + width / 2, y + 18, piece, "middle", size=13)
        x += width + 4


def expert(column: tuple[int, int], y: float, name: str, colour: str) -> Iterable[str]:
    """Yields an expert's box with its name."""
    left, right = column
    yield box(left + 8, y, right - left - 16, 38, colour)
    yield text((left + right) / 2, y + 24, name, "middle", size=14)


def arrows(y: float, p: Palette) -> Iterable[str]:
    """Yields the arrows of a row, from column to column up to the heads."""
    for (_, start), (end, _) in ((INPUT, LOWER), (LOWER, TOP), (TOP, HEAD)):
        yield arrow(start + 3, y, end - 3, y, p)


def box(
    x: float,
    y: float,
    width: float,
    height: float,
    fill: str,
    stroke: str = "none",
    radius: float = 7,
) -> str:
    """Returns a rectangle."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" '
        f'fill="{fill}" stroke="{stroke}"/>'
    )


def text(
    x: float,
    y: float,
    said: str,
    anchor: str = "start",
    fill: str | None = None,
    size: int = 15,
    weight: int = 400,
) -> str:
    """Returns a line of text; without ``fill`` in the colour of the picture's ink."""
    colour = f' fill="{fill}"' if fill else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}"{colour}>{said}</text>'
    )


def arrow(x1: float, y1: float, x2: float, y2: float, p: Palette) -> str:
    """Returns a horizontal arrow."""
    return (
        f'<path d="M{x1:g} {y1:g}H{x2:g}m-6 -4l6 4l-6 4" fill="none" stroke="{p.line}" '
        'stroke-width="1.6"/>'
    )


if __name__ == "__main__":
    main()
