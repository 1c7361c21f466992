"""From a source in some format to a prepared data set: check, count, split, write."""

import collections
import glob
import hashlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from vlbeit_jax.data.source import TRAIN, VALIDATION, open_set
from vlbeit_jax.data.text import TextTokenizer, packed_rows
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.check import Dropped, Limits, checked
from vlbeit_jax.prepare.formats import FORMATS
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.prepare.writer import split_of, write_set
from vlbeit_jax.types import Kind

EARLY_STOP_AFTER = 1000


def expand(patterns: Sequence[str]) -> list[pathlib.Path]:
    """Files of some paths and glob patterns, sorted within each; one that is named twice counts once.

    Raises:
      UsageError: one of them names no file.
    """
    found: list[pathlib.Path] = []
    for pattern in patterns:
        paths = [pathlib.Path(path) for path in sorted(glob.glob(pattern)) if pathlib.Path(path).is_file()]
        if not paths:
            raise UsageError(f"--input={pattern}: no such file")
        found += paths
    return list(dict.fromkeys(found))


def build_set(
    out: pathlib.Path,
    kind: Kind,
    source_format: str,
    inputs: Sequence[str],
    *,
    validation_share: float,
    max_dropped: float,
    limits: Limits,
    shards: int = 1,
    licence: str = "",
) -> dict[str, Any]:
    """Prepares images, pairs or texts; returns the description that was written.

    Args:
      out: the folder to make.
      kind: what records hold.
      source_format: a key of ``FORMATS``.
      inputs: paths and glob patterns.
      validation_share: part of the captions or documents that is held back.
      max_dropped: largest share of items that may be unusable.
      limits: for images.
      shards: files per split.
      licence: of the content, kept in the description.

    Raises:
      UsageError: an input is missing or unreadable, or too many items had to be dropped. Nothing is left at ``out``.
    """
    paths = expand(inputs)
    dropped: collections.Counter = collections.Counter()
    items = FORMATS[source_format](paths)
    records = _records(items, kind, limits, validation_share, max_dropped, dropped)
    meta = {
        "source": ", ".join(path.name for path in paths),
        "format_read": source_format,
        "licence": licence,
        "options": {"validation_share": validation_share, "limits": vars(limits)},
        "dropped": dropped,
    }
    return write_set(out, kind, records, shards=shards, meta=meta)


def _records(
    items: Iterator[Item], kind: Kind, limits: Limits, validation_share: float, max_dropped: float, dropped: collections.Counter
) -> Iterator[tuple[str, dict[str, Any]]]:
    seen = 0
    for seen, item in enumerate(items, 1):
        try:
            record = checked(item, kind, limits)
        except Dropped as reason:
            dropped[str(reason)] += 1
            if seen >= EARLY_STOP_AFTER:
                _stop_above(max_dropped, dropped, seen)
            continue
        text = item.captions[0] if item.captions else item.text
        yield split_of(text or hashlib.sha256(item.image or b"").hexdigest(), validation_share), record
    _stop_above(max_dropped, dropped, seen)


def _stop_above(share: float, dropped: collections.Counter, seen: int) -> None:
    if dropped.total() > share * seen:
        raise UsageError(
            f"{dropped.total()} of {seen} items cannot be used, more than --max_dropped={share:g}: {dict(dropped)}; "
            "mend the source or raise the limit"
        )


def pack_texts(out: pathlib.Path, places: Sequence[str], tokenizer: TextTokenizer, length: int, shards: int = 1) -> dict[str, Any]:
    """Prepares rows of exactly ``length`` word pieces out of prepared texts; splits stay as they are.

    Documents follow each other with a SEP between them and are cut at row ends; only a split's last row is padded.
    """
    sets = [open_set(place, Kind.TEXTS) for place in places]

    def records() -> Iterator[tuple[str, dict[str, Any]]]:
        for split in (TRAIN, VALIDATION):
            texts = (record["text"] for found in sets if found.count(split) for record in found.records(split))
            for number, row in enumerate(packed_rows(texts, tokenizer, length)):
                yield split, {"id": f"{split}/{number:09d}", "tokens": row}

    meta = {
        "source": ", ".join(str(found.meta["source"]) for found in sets),
        "licence": "; ".join(sorted({str(found.meta["licence"]) for found in sets})),
        "packed_from": [found.fingerprint for found in sets],
        "text_tokenizer": tokenizer.fingerprint,
        "length": length,
    }
    return write_set(out, Kind.TOKENS, records(), shards=shards, meta=meta)
