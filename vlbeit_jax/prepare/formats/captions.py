"""Captions in the files beside a picture: NAME.txt with one a line, NAME.json with a field."""

import json
from collections.abc import Sequence
from typing import Any

from vlbeit_jax.prepare.formats.words import captions_in, decoded, strings

FIELDS = ("caption", "captions", "text", "texts", "alt_text", "title")
UNDECODABLE = "undecodable_caption"


def words_of(contents: dict[str, bytes], texts: Sequence[str], has_picture: bool) -> dict[str, Any]:
    """Returns the captions or the text of an example, and what had to be mended.

    Args:
      contents: of its parts.
      texts: which of them are texts.
      has_picture: whether there is a picture; without one, a text is a document.
    """
    written, repairs, fault = [], [], ""
    for part in texts:
        text, repair = decoded(contents[part])
        repairs += [repair] if repair else []
        if text is None:
            fault = UNDECODABLE
        else:
            written.append(text.strip())
    written = [text for text in written if text]
    described = _described(contents["json"]) if "json" in contents else ()
    if written and [" ".join(written[0].split())] == [" ".join(text.split()) for text in described]:
        captions = (" ".join(written[0].split()),)  # One caption in several lines.
    else:
        captions = tuple(line for text in written for line in captions_in(text)) or described
    text = "" if has_picture else "\n".join(written or described)
    return {
        "captions": captions,
        "text": text,
        "repairs": tuple(repairs),
        "no_words": "" if captions else fault,
    }


def _described(content: bytes) -> tuple[str, ...]:
    """Returns the captions in a description; none if it has none or cannot be read."""
    try:
        values = json.loads(content)
    except ValueError:
        return ()
    if not isinstance(values, dict):
        return ()
    return next((texts for name in FIELDS if (texts := strings(values.get(name)))), ())


def no_words(captions: Sequence[str], texts: Sequence[tuple[str | None, str]]) -> str:
    """Returns why an example has no captions, if the encoding of its texts is the reason.

    Args:
      captions: of the example.
      texts: results of ``words.decoded``.
    """
    return UNDECODABLE if not captions and any(text is None for text, _ in texts) else ""
