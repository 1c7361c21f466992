"""A pretraining run: opened, and evaluated on prepared data: masked accuracy, baselines, gain."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from vlbeit_jax.config.streams import ImageStreamConfig, TextStreamConfig
from vlbeit_jax.data.records import ConcatRecords, Records
from vlbeit_jax.data.rematch import Rematched, wrong_partners
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.data.source import TRAIN, VALIDATION, PreparedSet, open_sets_once
from vlbeit_jax.data.splits import NOTHING_SEEN, Seen, example, read_seen, seen_records
from vlbeit_jax.data.text import packed_rows
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.masked import gain
from vlbeit_jax.objectives.masked_prediction import TERM_NAMES
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.tasks.open_pretrain import OpenPretrain
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.training.mesh import put_replicated
from vlbeit_jax.training.saved_run import read_newest, restore, trained_on
from vlbeit_jax.types import Kind

# Gain: the term whose accuracy is compared, and the field of a record that is exchanged.
GAINS = {"gain_text": ("mvlm_text", "image"), "gain_image": ("mvlm_image", "captions")}


@dataclasses.dataclass(frozen=True)
class OpenedRun:
    """A pretraining run with its newest parameters.

    Attributes:
      config: of the run.
      model: network and tokenizers.
      params: parameters of step ``step``.
      step: steps taken.
      trained_on: fingerprints of the data sets that the run was trained on.
      seen: keys of the images and texts in their training parts.
      held_out_only: of no set, the training part is scored. So one run can be compared with
        another that was trained on it.
    """

    config: Config
    model: OpenPretrain
    params: Tree
    step: int
    trained_on: frozenset[str]
    seen: Seen
    held_out_only: bool = False


def open_run(folder: pathlib.Path, step: int = 0) -> OpenedRun:
    """Opens the workdir of a pretraining run, which holds everything that evaluation needs.

    Args:
      folder: of the run.
      step: to open, and no other; 0: the newest one that is not damaged.

    Raises:
      Damaged: this step cannot be read, or none can.
      UsageError: the folder does not belong to a pretraining run, or has no checkpoint yet.
    """
    config = read_config(folder)
    if not isinstance(config.task, Pretrain):
        raise UsageError(
            f"{folder} holds a run of task {config.task.kind!r}; a pretraining run is needed"
        )
    model = config.task.open(folder)
    wanted = {"params": model.abstract_params()}
    step, trees = read_newest(folder, lambda each: restore(folder, each, wanted), step)
    params = trees["params"]
    known = trained_on(folder, step)
    seen = read_seen(folder) if known else NOTHING_SEEN
    return OpenedRun(config, model, params, step, known, seen)


def evaluate(run: OpenedRun, places: Sequence[str], mesh: Mesh, draws: int) -> dict[str, Any]:
    """Scores every term that the data sets allow.

    If the run has seen anything of a set's training part (the set itself, or an equal image or text
    in another set), only the held-out part of that set is scored; otherwise the whole set is. If
    no set of images is given, the images of pairs are scored as images alone as well; if no set of
    texts is given, so are their captions as texts alone.

    Args:
      run: to be evaluated.
      places: folders of prepared data sets.
      mesh: devices.
      draws: number of masks for every record.

    Returns:
      By term, accuracy with its interval, chance, unigram, loss and count, or None for a term
      without data;
      ``gain_text`` and ``gain_image`` with value, low and high; step, draws and data sets.

    Raises:
      UsageError: a data set is missing, holds nothing that can be scored, or holds out what the
        run was trained on.
    """
    sets = open_sets_once(places)
    run = dataclasses.replace(run, params=put_replicated(run.params, mesh))
    place = Place(run.config.run, run.config.loader, mesh, HostShard())
    results: dict[str, Any] = dict.fromkeys([*TERM_NAMES, *GAINS])
    for stream, records in records_by_stream(run, places, sets).items():
        scores = run.model.score(stream, run.params, records, place, draws=draws)
        for name, of_term in scores.items():
            results[name] = of_term.summary() | {"accuracy_interval": of_term.accuracy_interval()}
        if len(scores) > 1 and len(records) > 1:
            results |= _gains(run, stream, records, scores, place, draws)
    data = [
        {
            "folder": str(each.folder),
            "kind": each.kind,
            "fingerprint": each.fingerprint,
            "splits": _splits(run, each),
        }
        for each in sets
    ]
    return results | {"step": run.step, "draws": draws, "data": data}


def _gains(
    run: OpenedRun,
    stream: str,
    records: Records,
    own: Mapping[str, Any],
    place: Place,
    draws: int,
) -> dict[str, Any]:
    """Returns accuracy with the own partner minus that with a wrong one, under equal masks."""
    partners = wrong_partners(records, place.run.seed)
    gains = {}
    for name, (term, field) in GAINS.items():
        mismatched = Rematched(records, partners, field)
        about = f", wrong {field}"
        other = run.model.score(stream, run.params, mismatched, place, draws=draws, about=about)
        gains[name] = gain(own[term], other[term])._asdict()
    return gains


def _splits(run: OpenedRun, each: PreparedSet) -> list[str]:
    """Returns the parts of a set of whose images and texts the run has seen none."""
    what, both = seen_records(each, VALIDATION, run.seen)
    if what:
        raise UsageError(
            f"{each.folder} holds out {both.shape[1]} {what} that the run was trained on "
            f"({example(each, VALIDATION, both)}), so its figures would be of seen data; prepare "
            "it again with --apart_from=SET for each set that the run was trained on, or evaluate "
            "the run on other data"
        )
    splits = [split for split in (TRAIN, VALIDATION) if each.count(split)]
    is_new = run.trained_on.isdisjoint(each.contains) and not seen_records(each, TRAIN, run.seen)[0]
    if is_new and not run.held_out_only:
        return splits
    if VALIDATION not in splits and is_new:
        raise UsageError(
            f"{each.folder} has no held-out records; the run has seen none of the others, so "
            "evaluate it without --split"
        )
    if VALIDATION not in splits:
        raise UsageError(
            f"{each.folder} has no held-out records, and the run has seen some or all of the "
            "others; evaluate it on data that it has not seen"
        )
    return [VALIDATION]


def records_by_stream(
    run: OpenedRun, places: Sequence[str], sets: Sequence[PreparedSet]
) -> dict[str, ConcatRecords]:
    """Returns the records on which each stream is scored; streams without records are left out.

    Raises:
      UsageError: no stream has records.
    """
    records = {stream: records_of(run, sets, stream) for stream in run.model.objectives}
    records = {stream: of_stream for stream, of_stream in records.items() if len(of_stream)}
    if not records:
        streams = f"can be scored by this run's streams ({', '.join(run.model.objectives)})"
        no_tokenizer = (
            "can be scored: the run has neither a text nor a visual tokenizer. It is an import "
            "that nothing has been trained from"
        )
        raise UsageError(
            f"nothing in {', '.join(places)} {streams if run.model.objectives else no_tokenizer}"
        )
    return records


def records_of(run: OpenedRun, sets: Sequence[PreparedSet], stream: str) -> ConcatRecords:
    """Returns the records of all sets of a stream's kind that the run was not trained on."""
    section = run.model.stream_config(stream)
    if not isinstance(section, ImageStreamConfig):
        texts = {Kind.TEXTS, Kind.TOKENS}
        kinds = texts if any(each.kind in texts for each in sets) else {Kind.PAIRS}
    elif isinstance(section, TextStreamConfig):
        kinds = {Kind.PAIRS}
    else:
        has_images = any(each.kind is Kind.IMAGES for each in sets)
        kinds = {Kind.IMAGES} if has_images else {Kind.PAIRS}
    parts = []
    for each in sets:
        if each.kind in kinds:
            for split in _splits(run, each):
                records = each.records(split)
                pack = each.kind is Kind.TEXTS
                parts.append(_packed(run, records) if pack else _checked(run, each, records))
    return ConcatRecords(parts)


def _packed(run: OpenedRun, documents: Records) -> list[dict[str, Any]]:
    """Packs documents into rows of the length that the run was trained on."""
    model = run.model
    texts = (documents[index]["text"].decode() for index in range(len(documents)))
    rows = packed_rows(map(model.text.encode, texts), model.task.text.text_length)
    return [{"id": f"{number:09d}", "tokens": row} for number, row in enumerate(rows)]


def _checked(run: OpenedRun, each: PreparedSet, records: Records) -> Records:
    """Returns the records; packed rows must have the run's tokenizer and length."""
    if each.kind is not Kind.TOKENS:
        return records
    tokenizer = run.model.text.fingerprint
    if each.meta["text_tokenizer"] != tokenizer:
        raise UsageError(
            f"{each.folder} was packed with text tokenizer {each.meta['text_tokenizer']}, but the "
            f"run has {tokenizer}; give the texts themselves, which are packed here"
        )
    length = run.model.task.text.text_length
    if each.meta["length"] != length:
        raise UsageError(
            f"{each.folder} holds rows of {each.meta['length']} word pieces, but the run has "
            f"{length}; give the texts themselves"
        )
    return records
