"""Evaluation of a pretraining run on any prepared data: masked accuracies with baselines, and the cross-modal gain."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from vlbeit_jax.data.records import ConcatRecords, Records
from vlbeit_jax.data.rematch import Rematched, wrong_partners
from vlbeit_jax.data.source import TRAIN, VALIDATION, PreparedSet, open_set
from vlbeit_jax.data.splits import NOTHING_SEEN, Seen, example, read_seen, seen_records
from vlbeit_jax.data.text import packed_rows
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.masked import gain
from vlbeit_jax.objectives.masked_prediction import TERMS
from vlbeit_jax.tasks.masked_model import TEXT_TOKENIZER, VISUAL_TOKENIZER, MaskedModel
from vlbeit_jax.training import run_folder
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.sharding import put_replicated
from vlbeit_jax.types import Kind, Stream

Tree = Any
GAINS = {"gain_text": ("mvlm_text", "image"), "gain_image": ("mvlm_image", "captions")}


@dataclasses.dataclass(frozen=True)
class OpenedRun:
    """A pretraining run with its newest parameters.

    Attributes:
      model: network and tokenizers.
      params: parameters of step ``step``.
      step: steps taken.
      trained_on: fingerprints of the data sets that it has seen.
      seen: keys of the pictures and texts in their training parts.
    """

    model: MaskedModel
    params: Tree
    step: int
    trained_on: frozenset[str]
    seen: Seen


def open_run(folder: pathlib.Path) -> OpenedRun:
    """Opens the workdir of a pretraining run, which holds all that is needed.

    Raises:
      UsageError: it is none, or has no checkpoint yet.
    """
    config = run_folder.read_config(folder)
    if config.task != "pretrain":
        raise UsageError(
            f"{folder} holds a run of task {config.task!r}; a pretraining run is needed"
        )
    if (
        not (folder / run_folder.CHECKPOINTS).is_dir()
        or (step := Checkpointer(folder / run_folder.CHECKPOINTS, read_only=True).latest()) is None
    ):
        raise UsageError(f"the run in {folder} has no checkpoint yet")
    streams = [
        stream
        for stream in Stream
        if (not stream.has_text or (folder / TEXT_TOKENIZER).is_dir())
        and (not stream.has_image or (folder / VISUAL_TOKENIZER).is_dir())
    ]
    model = MaskedModel(config, streams, folder / TEXT_TOKENIZER, folder / VISUAL_TOKENIZER)
    params = run_folder.restore(folder, step, {"params": model.abstract_params()})["params"]
    described = Checkpointer(folder / run_folder.CHECKPOINTS, read_only=True).describe(step)
    trained_on = frozenset(described["trained_on"])
    return OpenedRun(
        model, params, step, trained_on, read_seen(folder) if trained_on else NOTHING_SEEN
    )


def evaluate(run: OpenedRun, places: Sequence[str], mesh: Mesh, draws: int) -> dict[str, Any]:
    """Scores every term that the data sets allow.

    A data set of whose training part the run has seen anything (the set itself, or an equal picture or text in another one) is
    scored on its held-back part, any other one as a whole. Images of pairs also stand for images alone when no image set is
    given.

    Args:
      run: what is evaluated.
      places: prepared data sets.
      mesh: where it is computed.
      draws: masks drawn for every record.

    Returns:
      Term to accuracy, chance, unigram, loss and count (None for a term without data); ``gain_text`` and ``gain_image``
      with value, low and high; and what was scored.

    Raises:
      UsageError: a data set is missing, holds nothing that can be scored, or holds back what the run was trained on.
    """
    sets = [open_set(place) for place in places]
    run = dataclasses.replace(run, params=put_replicated(run.params, mesh))
    results: dict[str, Any] = {name: None for name in [*TERMS.values(), *GAINS]}
    for stream, records in records_by_stream(run, places, sets).items():
        scores = run.model.score(stream, run.params, records, mesh, draws=draws)
        results |= {name: found.summary() for name, found in scores.items()}
        if stream is Stream.PAIR and len(records) > 1:
            results |= _gains(run, records, scores, mesh, draws)
    scored = [
        {
            "folder": str(found.folder),
            "kind": found.kind,
            "fingerprint": found.fingerprint,
            "splits": _splits(run, found),
        }
        for found in sets
    ]
    return results | {"step": run.step, "draws": draws, "data": scored}


def _gains(
    run: OpenedRun, records: Records, own: Mapping[str, Any], mesh: Mesh, draws: int
) -> dict[str, Any]:
    partners = wrong_partners(records, run.model.config.run.seed)
    found = {}
    for name, (term, field) in GAINS.items():
        other = run.model.score(
            Stream.PAIR, run.params, Rematched(records, partners, field), mesh, draws=draws
        )
        found[name] = gain(own[term], other[term])._asdict()
    return found


def _splits(run: OpenedRun, found: PreparedSet) -> list[str]:
    """The parts of a set that the run has not been trained on, nor on any picture or text in them."""
    splits = [split for split in (TRAIN, VALIDATION) if found.count(split)]
    what, both = seen_records(found, VALIDATION, run.seen)
    if what:
        raise UsageError(
            f"{found.folder} holds back {both.shape[1]} {what} that the run was trained on ({example(found, VALIDATION, both)}), so "
            "its figures would be of seen data; prepare it again with --apart_from=SET for each set that the run was trained on, or "
            "evaluate the run on other data"
        )
    if run.trained_on.isdisjoint(found.contains) and not seen_records(found, TRAIN, run.seen)[0]:
        return splits
    if VALIDATION not in splits:
        raise UsageError(
            f"{found.folder} has no held-back records, and the run has seen some or all of the others; evaluate it on data that it "
            "has not seen"
        )
    return [VALIDATION]


def records_by_stream(
    run: OpenedRun, places: Sequence[str], sets: Sequence[PreparedSet]
) -> dict[Stream, ConcatRecords]:
    """What the run's streams are scored on; one without records is left out.

    Raises:
      UsageError: all of them are.
    """
    found = {
        stream: records
        for stream in run.model.objectives
        if len(records := records_of(run, sets, stream))
    }
    if not found:
        streams = f"can be scored by this run's streams ({', '.join(run.model.objectives)})"
        none = "can be scored: the run has neither a text nor a visual tokenizer, as an import that nothing was trained from"
        raise UsageError(
            f"nothing in {', '.join(places)} {streams if run.model.objectives else none}"
        )
    return found


def records_of(run: OpenedRun, sets: Sequence[PreparedSet], stream: Stream) -> ConcatRecords:
    """What a stream is scored on: the records of all sets of its kind that the run has not been trained on."""
    kinds = {
        Stream.IMAGE: {Kind.IMAGES},
        Stream.TEXT: {Kind.TEXTS, Kind.TOKENS},
        Stream.PAIR: {Kind.PAIRS},
    }[stream]
    if stream is Stream.IMAGE and not any(found.kind in kinds for found in sets):
        kinds = {Kind.PAIRS}
    parts = []
    for found in sets:
        if found.kind in kinds:
            for split in _splits(run, found):
                records = found.records(split)
                parts.append(
                    _rows(run, records)
                    if found.kind is Kind.TEXTS
                    else _checked(run, found, records)
                )
    return ConcatRecords(parts)


def _rows(run: OpenedRun, documents: Records) -> list[dict[str, Any]]:
    """Documents packed into rows of the length that the run was trained on."""
    model = run.model
    texts = (documents[index]["text"] for index in range(len(documents)))
    rows = packed_rows(texts, model.text, model.stream_config(Stream.TEXT).text_length)
    return [{"id": f"{number:09d}", "tokens": row} for number, row in enumerate(rows)]


def _checked(run: OpenedRun, found: PreparedSet, records: Records) -> Records:
    if found.kind is Kind.TOKENS and found.meta["text_tokenizer"] != run.model.text.fingerprint:
        raise UsageError(
            f"{found.folder} was packed with text tokenizer {found.meta['text_tokenizer']}, but the run has "
            f"{run.model.text.fingerprint}; give the texts themselves, they are packed here"
        )
    length = run.model.stream_config(Stream.TEXT).text_length
    if found.kind is Kind.TOKENS and found.meta["length"] != length:
        raise UsageError(
            f"{found.folder} holds rows of {found.meta['length']} pieces, the run has {length}; give the texts themselves"
        )
    return records
