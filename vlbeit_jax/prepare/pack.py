"""Packs prepared texts into full rows of word pieces."""

import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.data.identity import KEYS, SPLITS
from vlbeit_jax.data.keys import Keys
from vlbeit_jax.data.source import PreparedSet, open_sets_once
from vlbeit_jax.data.splits import require_apart
from vlbeit_jax.data.text import TextTokenizer, packed_rows
from vlbeit_jax.folders import locked, require_absent
from vlbeit_jax.places import remove_tree
from vlbeit_jax.prepare.encode_texts import documents_of, encode, ranges_of
from vlbeit_jax.prepare.writer import write_set
from vlbeit_jax.progress import counted
from vlbeit_jax.types import Kind


def pack_texts(
    out: pathlib.Path,
    places: Sequence[str],
    tokenizer: TextTokenizer,
    length: int,
    shards: int = 1,
    workers: int = 0,
) -> dict[str, Any]:
    """Packs prepared texts into rows of exactly ``length`` word pieces; splits stay.

    Documents follow each other with a SEP between them and are cut at row ends; only a split's last
    row is padded. The keys of the documents go along, so that the rows can be held against other
    sets. If the process is stopped, finished parts of the work stay in ``OUT.packing``.
    """
    sets = open_sets_once(places, Kind.TEXTS)
    require_apart(sets)
    require_absent(out)
    folder = out.with_name(f"{out.name}.packing")
    ranges = {split: ranges_of(sets, places, split) for split in SPLITS}

    def records() -> Iterator[tuple[str, dict[str, Any]]]:
        for split in SPLITS:
            files = (each.file(folder, tokenizer.fingerprint) for each in ranges[split])
            documents = itertools.chain.from_iterable(map(documents_of, files))
            total = sum(each.count(split) for each in sets)
            shown = counted(documents, f"packing {split}", "texts", total) if total else ()
            for number, row in enumerate(packed_rows(shown, length)):
                yield split, {"id": f"{split}/{number:09d}", "tokens": row}

    meta = {
        "source": ", ".join(str(opened.meta["source"]) for opened in sets),
        "licence": "; ".join(sorted({str(opened.meta["licence"]) for opened in sets})),
        "packed_from": [opened.fingerprint for opened in sets],
        "text_tokenizer": tokenizer.fingerprint,
        "length": length,
    }
    with locked(folder):
        encode(folder, list(itertools.chain(*ranges.values())), tokenizer, workers)
        keys = _keys_of_packed(sets)
        meta = write_set(out, Kind.TOKENS, records(), shards=shards, meta=meta, keys=keys)
        remove_tree(folder)
    return meta


def _keys_of_packed(sets: Sequence[PreparedSet]) -> dict[tuple[str, str], Keys]:
    """The keys of several sets' documents, numbered in the order in which they are packed."""
    packed = {}
    for split in SPLITS:
        for what in KEYS:
            before, parts = 0, []
            for prepared in sets:
                keys = np.array(prepared.keys(what, split))
                keys[1] += np.uint64(before)
                parts.append(keys)
                before += prepared.count(split)
            joined = np.concatenate(parts, axis=1)
            if joined.size:
                _, first = np.unique(joined[0], return_index=True)
                packed[what, split] = joined[:, first]
    return packed
