"""Draws text in any script: in DejaVu Sans, in a font of the system, or as code points."""

import functools
import importlib.util
import pathlib
from collections.abc import Iterator

from PIL import Image, ImageDraw, ImageFont

SIZE = 13  # Pixels.
# Fonts with Chinese, Japanese and Korean letters. Such a font has 10 MB or more, so this package
# has none.
FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts")
FOLDERS_OF_MACOS = ("/System/Library/Fonts", "/Library/Fonts")
NAMES = (
    "NotoSansCJK-Regular*",
    "NotoSansCJK*",
    "SourceHanSans*Regular*",
    "DroidSansFallback*",
    "wqy-*",
    "PingFang*",
    "Arial Unicode*",
    "unifont*",
)
MISSING = "\uffff"  # No font has a glyph for it.
Font = ImageFont.FreeTypeFont


def width(text: str) -> float:
    """Returns how many pixels a text takes."""
    return sum(font.getlength(run) for run, font in _runs(text))


def write(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, ink: tuple[int, int, int]
) -> None:
    """Draws a text, whose place is that of its left upper corner."""
    left, top = place
    for run, font in _runs(text):
        draw.text((left, top), run, ink, font)
        left += font.getlength(run)


def _runs(text: str) -> Iterator[tuple[str, Font]]:
    """Yields parts of a text with the font that has their letters."""
    run, last = "", _usual_font()
    for letter in text:
        font = _font_of(letter)
        shown = letter if font else f"U+{ord(letter):04X} "
        font = font or _usual_font()
        if font is not last and run:
            yield run, last
            run = ""
        run, last = run + shown, font
    if run:
        yield run, last


@functools.lru_cache(maxsize=4096)
def _font_of(letter: str) -> Font | None:
    """Returns the first font that has a letter; None if there is none."""
    if letter.isspace() or _has(_usual_font(), letter):
        return _usual_font()
    other = _other_font()
    return other if other and _has(other, letter) else None


def _has(font: Font, letter: str) -> bool:
    """Whether a font has a glyph: without one, it draws the same box for every letter."""
    return _glyph(font, letter) != _glyph(font, MISSING)


def _glyph(font: Font, letter: str) -> bytes:
    image = Image.new("1", (2 * SIZE, 2 * SIZE))
    ImageDraw.Draw(image).text((0, 0), letter, 1, font)
    return image.tobytes()


@functools.cache
def _usual_font() -> Font:
    """Returns DejaVu Sans, which matplotlib brings; importing matplotlib would take a second.

    It has Latin, Greek, Cyrillic and Arabic letters.
    """
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None and spec.origin is not None, "matplotlib is installed"
    folder = pathlib.Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / "DejaVuSans.ttf"), SIZE)


@functools.cache
def _other_font() -> Font | None:
    """Returns a font of the system for further scripts; None if there is none."""
    folders = [pathlib.Path(each).expanduser() for each in (*FOLDERS, *FOLDERS_OF_MACOS)]
    for name in NAMES:
        for folder in folders:
            for path in sorted(folder.rglob(name)):
                if path.suffix.lower() in (".ttc", ".ttf", ".otf"):
                    return ImageFont.truetype(str(path), SIZE)
    return None
