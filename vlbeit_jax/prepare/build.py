"""From a source in some format to a prepared data set: check, count, split, write."""

import collections
import glob
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.data.identity import KEYS, TRAIN, VALIDATION, picture_key, split_of, text_key
from vlbeit_jax.data.keys import Keys
from vlbeit_jax.data.source import PreparedSet, open_set
from vlbeit_jax.data.splits import require_apart
from vlbeit_jax.data.text import TextTokenizer, packed_rows
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.apart import OtherSets, Placed, captions_apart
from vlbeit_jax.prepare.check import Dropped, Limits, checked
from vlbeit_jax.prepare.formats import FORMATS
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.prepare.writer import write_set
from vlbeit_jax.types import Kind

EARLY_STOP_AFTER = 1000


def expand(patterns: Sequence[str]) -> list[pathlib.Path]:
    """Returns the files of some paths and patterns, sorted within each, each file once.

    Raises:
      UsageError: one of them names no file.
    """
    found: list[pathlib.Path] = []
    for pattern in patterns:
        paths = [
            pathlib.Path(path)
            for path in sorted(glob.glob(pattern))
            if pathlib.Path(path).is_file()
        ]
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
    apart_from: Sequence[str] = (),
) -> dict[str, Any]:
    """Prepares images, pairs or texts; returns the description that was written.

    Args:
      out: the folder to make.
      kind: what records hold.
      source_format: a key of ``FORMATS``.
      inputs: paths and glob patterns.
      validation_share: part of the pictures, or of the documents of a text set, that is held back.
      max_dropped: largest share of items that may be unusable.
      limits: for images.
      shards: files per split.
      licence: of the content, kept in the description.
      apart_from: prepared sets that this one will be used with; what is held back in one is not
        trained on in the other.

    Raises:
      UsageError: an input is missing or unreadable, or too many items had to be dropped. Nothing is
        left at ``out``.
    """
    paths = expand(inputs)
    others = [open_set(place) for place in apart_from]
    dropped: collections.Counter = collections.Counter()
    left_out: collections.Counter = collections.Counter()
    items = FORMATS[source_format](paths)
    records = _records(items, kind, limits, validation_share, max_dropped, dropped)
    if others:
        records = OtherSets(others).apart(records, left_out)
    if kind is Kind.PAIRS:
        records = captions_apart(records, out.parent, left_out)
    meta = {
        "source": ", ".join(path.name for path in paths),
        "format_read": source_format,
        "licence": licence,
        "options": {"validation_share": validation_share, "limits": vars(limits)},
        "apart_from": [found.fingerprint for found in others],
        "dropped": dropped,
        "left_out": left_out,
    }
    return write_set(out, kind, records, shards=shards, meta=meta)


def _records(
    items: Iterator[Item],
    kind: Kind,
    limits: Limits,
    validation_share: float,
    max_dropped: float,
    dropped: collections.Counter,
) -> Iterator[Placed]:
    seen = 0
    for seen, item in enumerate(items, 1):
        try:
            record = checked(item, kind, limits)
        except Dropped as reason:
            dropped[str(reason)] += 1
            if seen >= EARLY_STOP_AFTER:
                _stop_above(max_dropped, dropped, seen)
            continue
        key = text_key(record["text"]) if kind is Kind.TEXTS else picture_key(record["sha256"])
        yield split_of(key, validation_share), record
    _stop_above(max_dropped, dropped, seen)


def _stop_above(share: float, dropped: collections.Counter, seen: int) -> None:
    if dropped.total() > share * seen:
        raise UsageError(
            f"{dropped.total()} of {seen} items cannot be used, more than "
            f"--max_dropped={share:g}: {dict(dropped)}; "
            "mend the source or raise the limit"
        )


def pack_texts(
    out: pathlib.Path, places: Sequence[str], tokenizer: TextTokenizer, length: int, shards: int = 1
) -> dict[str, Any]:
    """Packs prepared texts into rows of exactly ``length`` word pieces; splits stay.

    Documents follow each other with a SEP between them and are cut at row ends; only a split's last
    row is padded. The keys of the documents go along, so that the rows can be held against other
    sets.
    """
    sets = [open_set(place, Kind.TEXTS) for place in places]
    require_apart(sets)

    def records() -> Iterator[tuple[str, dict[str, Any]]]:
        for split in (TRAIN, VALIDATION):
            texts = (
                record["text"]
                for found in sets
                if found.count(split)
                for record in found.records(split)
            )
            for number, row in enumerate(packed_rows(texts, tokenizer, length)):
                yield split, {"id": f"{split}/{number:09d}", "tokens": row}

    meta = {
        "source": ", ".join(str(found.meta["source"]) for found in sets),
        "licence": "; ".join(sorted({str(found.meta["licence"]) for found in sets})),
        "packed_from": [found.fingerprint for found in sets],
        "text_tokenizer": tokenizer.fingerprint,
        "length": length,
    }
    return write_set(
        out, Kind.TOKENS, records(), shards=shards, meta=meta, keys=_keys_of_packed(sets)
    )


def _keys_of_packed(sets: Sequence[PreparedSet]) -> dict[tuple[str, str], Keys]:
    """The keys of several sets' documents, numbered in the order in which they are packed."""
    packed = {}
    for split in (TRAIN, VALIDATION):
        for what in KEYS:
            before, parts = 0, []
            for found in sets:
                keys = np.array(found.keys(what, split))
                keys[1] += np.uint64(before)
                parts.append(keys)
                before += found.count(split)
            joined = np.concatenate(parts, axis=1)
            if joined.size:
                _, first = np.unique(joined[0], return_index=True)
                packed[what, split] = joined[:, first]
    return packed
