"""From a source in some format to a prepared data set: check, count, split, write."""

import collections
import glob
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.data.identity import KEYS, SPLITS
from vlbeit_jax.data.keys import Keys
from vlbeit_jax.data.source import PreparedSet, open_sets_once
from vlbeit_jax.data.splits import require_apart
from vlbeit_jax.data.text import TextTokenizer, packed_rows
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.apart import OtherSets, Placed, captions_apart, captions_repeated
from vlbeit_jax.prepare.check import Limits
from vlbeit_jax.prepare.formats import (
    CLASS_NAMES,
    COUNTS,
    FORMATS,
    OF_FOLDERS,
    OFFICIAL,
    STATES_GROUPS,
)
from vlbeit_jax.prepare.held_back import require_held_back
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.prepare.labels import Classes
from vlbeit_jax.prepare.records import GROUPED, RecordMaker
from vlbeit_jax.prepare.writer import GROUP, keys_of_any, keys_of_benchmark, write_set
from vlbeit_jax.progress import counted
from vlbeit_jax.types import Kind


def expand(patterns: Sequence[str], *, folders: bool = False) -> list[pathlib.Path]:
    """Returns the files, or folders, of some paths and patterns, sorted within each, each once.

    Raises:
      UsageError: one of them names none.
    """
    found: list[pathlib.Path] = []
    for pattern in patterns:
        paths = [pathlib.Path(path) for path in sorted(glob.glob(pattern))]
        wanted = [path for path in paths if (path.is_dir() if folders else path.is_file())]
        if not wanted and paths:
            hint = (
                "is no folder; this format reads folders, so name the one that holds it"
                if folders
                else "is a folder; name its files, or read its pictures with --format=folder"
            )
            raise UsageError(f"--input={pattern}: {hint}")
        if not wanted:
            raise UsageError(f"--input={pattern}: no such {'folder' if folders else 'file'}")
        found += wanted
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
    fewest: int = 0,
    shards: int = 1,
    licence: str = "",
    apart_from: Sequence[str] = (),
    classes: str = "",
    splits: Sequence[str] = (),
    fits: Callable[[Item], Item] = lambda item: item,
) -> dict[str, Any]:
    """Prepares what has not been packed; returns the description that was written.

    Args:
      out: the folder to make.
      kind: what records hold.
      source_format: a key of ``FORMATS``.
      inputs: paths and glob patterns.
      validation_share: part of the pictures, or of the documents of a text set, that is held back.
        Splits that the source states win.
      max_dropped: largest share of items that may be unusable; none of annotated data.
      limits: for images.
      fewest: records of a small set that must be held back, unless the source states its splits.
      shards: files per split.
      licence: of the content, kept in the description.
      apart_from: sets to be used with this one; what one holds back, the other does not train on.
      classes: file with the names of the classes; empty: those in the source, sorted.
      splits: of a published benchmark, to read; empty: all.
      fits: gives an item a fault if its captions are too long (``fitting.Fits``).

    Raises:
      UsageError: an input is missing or unreadable, an annotation is wrong, or too many items had
        to be dropped. Nothing is left at ``out``.
      FewHeldBackError: fewer than ``fewest`` records are held back; then too nothing is left.
    """
    _require_whole_pictures(kind, limits)
    official = source_format in OFFICIAL
    limits = limits.of_benchmark() if official else limits
    paths = expand(inputs, folders=source_format in OF_FOLDERS)
    others = open_sets_once(apart_from)
    more = _group_of_pairs(source_format, paths) if kind is Kind.PAIRS else {}
    named, grouped = _classes(kind, classes, source_format, paths), kind in GROUPED or bool(more)
    maker = RecordMaker(kind, limits, validation_share, max_dropped, named, grouped, official)
    records = maker.records(map(fits, _items(source_format, paths, splits)))
    # Before captions of training are left out: of few captions that repeat, no share keeps any.
    records = require_held_back(records, fewest, lambda: not maker.stated)
    repeated: collections.Counter[str] = collections.Counter()
    records = _apart(records, maker, others, out.parent, repeated)
    meta = {
        "source": ", ".join(path.name for path in paths),
        "format_read": source_format,
        "licence": licence,
        "options": {"validation_share": validation_share, "limits": vars(limits)},
        "apart_from": [found.fingerprint for found in others],
    }
    records = _with_description(records, maker, meta, repeated)
    keyed = keys_of_benchmark if official else keys_of_any
    return write_set(out, kind, records, shards=shards, meta=meta, more=more, keyed=keyed)


def _require_whole_pictures(kind: Kind, limits: Limits) -> None:
    if kind is Kind.MASKS and limits.short_side:
        raise UsageError(
            f"--short_side={limits.short_side} is not for masks, which must stay as they are; "
            "training and evaluation resize pictures"
        )


def _apart(
    records: Iterator[Placed],
    maker: RecordMaker,
    others: Sequence[PreparedSet],
    folder: pathlib.Path,
    repeated: collections.Counter[str],
) -> Iterator[Placed]:
    """Yields what no other split and no other set holds; see ``prepare.apart``."""
    if others:
        apart = OtherSets(others).apart
        records = apart(records, maker.left_out, all_held_back=maker.official)
    if maker.kind is not Kind.PAIRS:
        return records
    if maker.official:
        return captions_repeated(records, repeated)
    return captions_apart(records, folder, maker.left_out)


def _classes(kind: Kind, file: str, source_format: str, paths: Sequence[pathlib.Path]) -> Classes:
    """Returns the names of classes: those of a file, of the format, or else those of the records.

    Raises:
      UsageError: there is a file, but the kind has no classes.
    """
    if not file:
        known = CLASS_NAMES.get(source_format)
        return Classes(*known(paths)) if known else Classes()
    if not kind.has_label and kind is not Kind.MASKS:
        raise UsageError(f"--classes={file} is for labelled data and masks, but --kind={kind}")
    return Classes.read(file)


def _with_description(
    records: Iterator[Placed],
    maker: RecordMaker,
    meta: dict[str, Any],
    repeated: Mapping[str, int],
) -> Iterator[Placed]:
    yield from records
    # Known once all records are.
    meta |= {"dropped": maker.dropped, "left_out": maker.left_out} | maker.description()
    if repeated:
        meta["captions_in_training"] = dict(repeated)


def _items(
    source_format: str, paths: Sequence[pathlib.Path], splits: Sequence[str]
) -> Iterator[Item]:
    """Yields the items of the source, and shows how many were read."""
    # Formats that read a part of a benchmark count all of it.
    if splits and source_format not in OFFICIAL:
        raise UsageError(
            f"--splits is for formats of published benchmarks, {', '.join(sorted(OFFICIAL))}, but "
            f"--format={source_format}"
        )
    total = COUNTS[source_format](paths) if source_format in COUNTS and not splits else None
    items = OFFICIAL[source_format](paths, splits) if splits else FORMATS[source_format](paths)
    return counted(items, "reading", "items", total)


def _group_of_pairs(source_format: str, paths: Sequence[pathlib.Path]) -> Mapping[str, Any]:
    """Returns the field of a pair's group, or nothing if the source states no groups.

    Crawled pairs have none. A set without any keeps the fingerprint that it has always had.
    """
    states_groups = STATES_GROUPS.get(source_format)
    return GROUP if states_groups and states_groups(paths) else {}


def pack_texts(
    out: pathlib.Path, places: Sequence[str], tokenizer: TextTokenizer, length: int, shards: int = 1
) -> dict[str, Any]:
    """Packs prepared texts into rows of exactly ``length`` word pieces; splits stay.

    Documents follow each other with a SEP between them and are cut at row ends; only a split's last
    row is padded. The keys of the documents go along, so that the rows can be held against other
    sets.
    """
    sets = open_sets_once(places, Kind.TEXTS)
    require_apart(sets)

    def records() -> Iterator[tuple[str, dict[str, Any]]]:
        for split in SPLITS:
            documents = (
                record for each in sets if each.count(split) for record in each.records(split)
            )
            total = sum(each.count(split) for each in sets)
            shown = counted(documents, f"packing {split}", "texts", total) if total else ()
            texts = (record["text"] for record in shown)
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
    for split in SPLITS:
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
