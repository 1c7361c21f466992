"""Compares runs by masked accuracy on a domain, and on the data that they started with.

    python -m tools.transfer.domain EMOJI OUT START RUN...

EMOJI is a set of pairs that python -m tools.emoji.sets has made, START a pretraining run, and each
RUN one that was trained on the training part of EMOJI. All are scored on the test part of EMOJI and
on the held-out part of sample:pairs, under the same masks. Records whose picture or one of whose
captions a run has seen are left out for all. Each run is compared with START, with an interval over
records. OUT is a file for the figures.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tools import command
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.data.identity import KEYS
from vlbeit_jax.data.keys import keys_of
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.data.source import PreparedSet, open_set
from vlbeit_jax.data.splits import Seen
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.masked import Scores, gain
from vlbeit_jax.runtime.pretrained import OpenedRun, open_run
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.training.mesh import make_mesh, put_replicated

OLD = "sample:pairs"
STREAMS = ("image", "pair")
DRAWS = 4


def study(emoji: pathlib.Path, folders: list[pathlib.Path]) -> dict[str, Any]:
    """Returns accuracies and gains over the first run, by data, run and loss.

    Args:
      emoji: folder of the set of pairs.
      folders: of the runs; the first one is what the others are compared with.

    Raises:
      UsageError: the runs have different tokenizers.
    """
    runs = {str(folder): open_run(folder) for folder in folders}
    if len({json.dumps(run.model.fingerprints, sort_keys=True) for run in runs.values()}) > 1:
        raise UsageError(
            "the runs have different tokenizers, so that their accuracies are of different "
            "targets; give runs with the same tokenizers"
        )
    parts = {"domain": (open_set(str(emoji)), "test"), "old": (open_set(OLD), "validation")}
    results: dict[str, Any] = {}
    for name, (found, split) in parts.items():
        records = _unseen(found, split, [run.seen for run in runs.values()])
        scores = {folder: _scored(run, records) for folder, run in runs.items()}
        start = next(iter(scores.values()))
        results[name] = {
            "set": str(found.folder),
            "fingerprint": found.fingerprint,
            "split": split,
            "records": len(records),
            "left_out": found.count(split) - len(records),
            "runs": {folder: _compared(each, start) for folder, each in scores.items()},
        }
    return {"draws": DRAWS, "results": results}


def _unseen(found: PreparedSet, split: str, seen: Sequence[Seen]) -> list[Mapping[str, Any]]:
    """Returns the records of which no run has seen the picture or a caption."""
    known = {what: np.concatenate([each[what] for each in seen]) for what in KEYS}
    records = found.records(split)
    every = (records[index] for index in range(len(records)))
    return [
        record
        for record in every
        if not any(
            np.isin(np.array(keys, np.uint64), known[what]).any()
            for what, keys in keys_of(record).items()
        )
    ]


def _scored(run: OpenedRun, records: Sequence[Mapping[str, Any]]) -> dict[str, Scores]:
    """Returns the scores of all losses on pictures and pairs."""
    mesh = make_mesh(MeshConfig())
    # The masks depend on the seed, so all runs are scored with the same one.
    place = Place(dataclasses.replace(run.config.run, seed=0), run.config.loader, mesh, HostShard())
    params = put_replicated(run.params, mesh)
    scores: dict[str, Scores] = {}
    for stream in STREAMS:
        scores |= run.model.score(stream, params, records, place, draws=DRAWS)
    return scores


def _compared(scores: dict[str, Scores], start: dict[str, Scores]) -> dict[str, Any]:
    return {
        term: {
            **found.summary(),
            "gain": gain(found, start[term])._asdict() if found is not start[term] else None,
        }
        for term, found in scores.items()
    }


def told(study: dict[str, Any]) -> str:
    """Returns the figures as a table."""
    lines = []
    for name, part in study["results"].items():
        lines.append(
            f"{name}: {part['records']} records of {part['set']}, {part['split']}; "
            f"{part['left_out']} left out"
        )
        for folder, terms in part["runs"].items():
            lines.append(f"  {folder}")
            for term, found in terms.items():
                line = f"    {term:12s} {found['accuracy']:.4f} unigram {found['unigram']:.4f}"
                if interval := found["gain"]:
                    line += "  {value:+.4f} ({low:+.4f} to {high:+.4f})".format(**interval)
                lines.append(line)
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Scores the runs, prints a table and writes the figures."""
    if len(arguments) < 4:
        raise UsageError("give EMOJI, OUT, START and at least one RUN; --help tells more")
    emoji, out, *folders = map(pathlib.Path, arguments)
    found = study(emoji, folders)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(told(found))


if __name__ == "__main__":
    command.run(main, __doc__)
