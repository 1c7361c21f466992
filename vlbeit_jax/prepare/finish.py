"""The last step: checks all counts, decides what stays, writes the set and its description."""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.copies import local_copy
from vlbeit_jax.data.content import ContentFingerprint
from vlbeit_jax.data.keys import Keys
from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.folders import assembled
from vlbeit_jax.places import remove_tree
from vlbeit_jax.prepare import duplicates
from vlbeit_jax.prepare.counts import Counts
from vlbeit_jax.prepare.decide import Wishes, decide
from vlbeit_jax.prepare.describe import provenance, summary
from vlbeit_jax.prepare.final import Made, Shard, content_of, layout
from vlbeit_jax.prepare.held_out import require_held_out
from vlbeit_jax.prepare.merge import (
    Edits,
    Merged,
    final_keys,
)
from vlbeit_jax.prepare.parts import whole
from vlbeit_jax.prepare.records import require_usable
from vlbeit_jax.prepare.set_files import describe_set, nothing_written, require_keys_apart
from vlbeit_jax.prepare.work import do_shards
from vlbeit_jax.prepare.work_plan import WorkPlan
from vlbeit_jax.prepare.write_part import features_of
from vlbeit_jax.progress import say
from vlbeit_jax.types import Kind

DONE_FILE = "done.json"


def finish(
    out: pathlib.Path,
    plan: WorkPlan,
    wishes: Wishes,
    others: Sequence[PreparedSet],
    told: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes the set of a plan whose parts are all finished.

    Args:
      out: the folder to make.
      plan: of the work.
      wishes: what is decided now.
      others: the sets that this one is kept apart from.
      told: further entries of the description.

    Returns:
      The description.

    Raises:
      UsageError: too many items could not be used, or none was left.
      FewHeldOutError: fewer than ``wishes.fewest`` records are held out.
      ValueError: a picture is in two splits, or a text in training and another one.
    """
    parts = list(plan.all_finished().values())
    assert len(parts) == len(plan.units), "the parts are finished"
    counts = Counts(parts)
    counts.skipped.update(told["skipped"])
    require_usable(counts.seen, counts.dropped, counts.first_dropped, plan.max_dropped)
    # Before captions of training are left out: of few captions that repeat, no share keeps any.
    require_held_out(counts.placed, wishes.fewest, counts.stated)
    with local_copy(plan.parts_folder, "*.npz") as arrays:
        merged = Merged(arrays, parts)
        edits, found = decide(plan, merged, wishes, others, counts)
        keys = final_keys(
            merged, edits, of_benchmark=plan.request.official, pairs=plan.kind is Kind.PAIRS
        )
        require_keys_apart(keys)
        meta = counts.description() | found
        if not _records(edits):
            raise nothing_written(out, meta)
        options = {**told["options"], **wishes.as_options()}
        meta = {**told, **meta, "options": options, **provenance()}
        with assembled(out, plan.folder / "set") as folders:
            meta = _write(folders, plan, wishes, merged, edits, keys, meta)
            _done(plan, meta)
    remove_tree(plan.folder)
    for line in summary(meta, parts):
        say(line)
    return meta


def _write(
    folders: tuple[pathlib.Path, pathlib.Path],
    plan: WorkPlan,
    wishes: Wishes,
    merged: Merged,
    edits: Mapping[str, Edits],
    keys: Mapping[tuple[str, str], Keys],
    meta: dict[str, Any],
) -> dict[str, Any]:
    """Writes the shards and what is beside them; returns the description."""
    of_shards, folder = folders
    counts = _records(edits)
    shards = [
        shard
        for split in counts
        for shard in layout(merged, split, edits[split], wishes.shards, of_shards, str(plan.kind))
    ]
    made = do_shards(plan, shards, wishes.workers)
    digests = _Digests(merged, edits, shards, made)
    if plan.request.looks:
        _save_looks(folder, merged, edits, counts)
    return describe_set(
        folder,
        plan.kind,
        features_of(plan),
        meta,
        keys=keys,
        counts=counts,
        fingerprint=digests.fingerprint(plan.kind),
        shards=_described(shards, made, digests),
    )


def _records(edits: Mapping[str, Edits]) -> dict[str, int]:
    """Returns how many records are left, by split."""
    counts = {split: int(found.kept.sum()) for split, found in sorted(edits.items())}
    return {split: count for split, count in counts.items() if count}


class _Digests:
    """The digests of the set's records, in order; they are read from the parts' arrays."""

    def __init__(
        self,
        merged: Merged,
        edits: Mapping[str, Edits],
        shards: Sequence[Shard],
        made: Sequence[Made],
    ):
        self._merged, self._edits = merged, edits
        self._changed: dict[str, dict[int, bytes]] = {}
        for shard, each in zip(shards, made, strict=True):
            changed = self._changed.setdefault(shard.split, {})
            for place, digest in each.digests.items():
                changed[merged.number(shard.split, *place)] = digest

    def of(self, split: str) -> Iterator[bytes]:
        """Yields those of a split."""
        kept, changed = self._edits[split].kept, self._changed[split]
        for number, digest in self._merged.digests(split):
            if kept[number]:
                yield changed.get(number, digest)

    def fingerprint(self, kind: Kind) -> str:
        """Returns the fingerprint of the set."""
        content = ContentFingerprint(str(kind))
        for split in self._changed:
            for digest in self.of(split):
                content.add_digest(split, digest)
        return content.hexdigest()


def _described(
    shards: Sequence[Shard], made: Sequence[Made], digests: _Digests
) -> dict[str, dict[str, Any]]:
    """Returns what the description says of each file."""
    found = {}
    for split in dict.fromkeys(shard.split for shard in shards):
        both = [pair for pair in zip(shards, made, strict=True) if pair[0].split == split]
        contents = content_of([shard for shard, _ in both], digests.of(split))
        for (shard, each), content in zip(both, contents, strict=True):
            found[shard.path.name] = {
                "records": shard.count(),
                "bytes": each.size,
                "sha256": each.sha256,
                "content_sha256": content,
                **each.facts,
            }
    return found


def _save_looks(
    folder: pathlib.Path,
    merged: Merged,
    edits: Mapping[str, Edits],
    records: Mapping[str, int],
) -> None:
    for split in records:
        np.save(
            folder / duplicates.LOOKS_FILE.format(split), merged.looks(split)[edits[split].kept]
        )


def _done(plan: WorkPlan, meta: Mapping[str, Any]) -> None:
    """Writes down that the set is complete, in case the process ends between two renames."""
    told = {"plan_sha256": plan.as_json()["plan_sha256"], "fingerprint": meta["fingerprint"]}
    with whole(plan.folder / DONE_FILE) as path:
        path.write_text(json.dumps(told))
