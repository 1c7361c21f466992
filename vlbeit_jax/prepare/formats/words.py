"""Texts and names as they are found in files: decoded, if their encoding can be told."""

import re
import unicodedata
from collections.abc import Sequence

# A lone surrogate is half a character. No UTF-8 file can hold it, but an escape in JSON can.
SURROGATE = re.compile("[\ud800-\udfff]")
FROM_LATIN, FROM_UTF16 = "decoded_as_windows_1252", "decoded_as_utf_16"
MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


def decoded(content: bytes) -> tuple[str | None, str]:
    """Returns the text of a caption's file, and what was mended; None if the encoding is unknown.

    It is UTF-8, or UTF-16 with a byte-order mark or with a zero in every other byte, or else
    Windows-1252, of which Latin-1 is a part, if all that it gives is letters and signs of it.
    """
    for mark, name in MARKS.items():
        if content.startswith(mark):
            try:
                text = content[len(mark) :].decode(name)
            except UnicodeDecodeError:
                return None, ""
            return text, "" if name == "utf-8" else FROM_UTF16
    if (text := _utf_16(content)) is not None:
        return text, FROM_UTF16
    try:
        return content.decode(), ""
    except UnicodeDecodeError:
        pass
    try:
        text = content.decode("windows-1252")
    except UnicodeDecodeError:
        return None, ""
    return (text, FROM_LATIN) if _is_european(text) else (None, "")


def _utf_16(content: bytes) -> str | None:
    """Returns the text if zeros tell that the bytes are mostly ASCII in UTF-16."""
    if len(content) < 4 or len(content) % 2:
        return None
    for name, zeros, others in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
        half = len(content) // 2
        if content[zeros::2].count(0) * 2 > half and not content[others::2].count(0):
            try:
                return content.decode(name)
            except UnicodeDecodeError:
                return None
    return None


def _is_european(text: str) -> bool:
    """Returns whether a decoded text could be one: words, in which few letters have accents.

    A text of another single-byte encoding, such as one of Cyrillic, would be all accents.
    """
    letters = [each for each in text if each.isalpha()]
    strange = [each for each in letters if each > "\x7f"]
    controls = any(unicodedata.category(each) == "Cc" and each not in "\t\r\n" for each in text)
    return not controls and 2 * len(strange) <= len(letters)


def printable(name: str) -> str:
    r"""Returns the name of a file as Unicode; a byte that is not becomes ``\xff``."""
    if not SURROGATE.search(name):
        return name
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return name.encode("utf-8", "backslashreplace").decode()


def captions_in(text: str) -> tuple[str, ...]:
    """Returns the captions of a file, one a line."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def strings(value: object) -> tuple[str, ...]:
    """Returns the texts in a JSON value: a string, or a list of strings or of objects with one."""
    if isinstance(value, str):
        return (value.strip(),) if value.strip() else ()
    if isinstance(value, dict):
        names = ("caption", "text", "raw", "sentence", "phrase")
        return next((strings(value[name]) for name in names if name in value), ())
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return tuple(text for each in value for text in strings(each))
    return ()
