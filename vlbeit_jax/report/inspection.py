"""One page about the data of a configuration: rows as the network sees them, and their sets."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vlbeit_jax.data.pipeline import Examples
from vlbeit_jax.data.source import TRAIN, PreparedSet
from vlbeit_jax.report.content import line, panel_row
from vlbeit_jax.report.data import Use, data_section
from vlbeit_jax.report.data_figures import data_panels
from vlbeit_jax.report.data_warnings import warnings_of
from vlbeit_jax.report.markup import Child, Html, Section, document, element, note, table, words
from vlbeit_jax.report.measures import Measures, measure, repeated
from vlbeit_jax.report.rows import row_cards, row_legend
from vlbeit_jax.report.style import STYLE
from vlbeit_jax.report.verdicts import Level, Verdict
from vlbeit_jax.tasks.base import Stream, TrainingData
from vlbeit_jax.tasks.reading import Reading, read_rows, reading_of

Batch = Mapping[str, np.ndarray]


class Reader(NamedTuple):
    """A stream that reads a set.

    Attributes:
      stream: its name.
      side: of the network's picture, pixels; 0 without pictures.
      length: of a row of the network's text, word pieces; 0 without texts.
      batch_size: rows of a step.
    """

    stream: str
    side: int
    length: int
    batch_size: int


class Seen(NamedTuple):
    """A set with what was found in it.

    Attributes:
      prepared: the set.
      measures: of its records.
      readers: the streams that read it.
      warnings: what is suspicious.
    """

    prepared: PreparedSet
    measures: Measures
    readers: list[Reader]
    warnings: list[Verdict]


def data_page(title: str, opened: Any, data: TrainingData, rows: int, records: int) -> Html:
    """Returns the page.

    Args:
      title: of the page.
      opened: the task with its tokenizers.
      data: its training sets.
      rows: of each stream's first batch that are shown.
      records: of each set that are measured.
    """
    streams = opened.task.streams()
    readings = {name: reading_of(opened, name) for name in streams}
    seen = _seen(streams, data, readings, records)
    sections = [
        _rows_section(name, data.examples(name), readings[name], min(rows, each.batch_size))
        for name, each in streams.items()
    ]
    sections += [_set_section(each) for each in seen]
    uses = [
        Use(each.prepared.name, f"training: {reader.stream}")
        for each in seen
        for reader in each.readers
    ]
    if uses:
        sections.append(data_section(uses, {}))
    links = (element("li", element("a", each.title, href=f"#{each.anchor}")) for each in sections)
    return document(
        title,
        STYLE,
        element("h1", title),
        words("The rows are those of step 1, after crop, augmentation and masks."),
        element("div", element("ul", _in_short(seen)), class_="short"),
        element("nav", element("ul", links), aria_label="Contents"),
        *(each.markup() for each in sections),
    )


def _seen(
    streams: Mapping[str, Stream],
    data: TrainingData,
    readings: Mapping[str, Reading],
    records: int,
) -> list[Seen]:
    used: dict[str, list[str]] = {}
    sets = {each.name: each for sets in data.sources.values() for each in sets}
    for name in streams:
        for each in data.sources.get(name, ()):
            used.setdefault(each.name, []).append(name)
    seen = []
    for place, names in used.items():
        # A stream of pictures does not read the captions that its set may have.
        tokenizers = [readings[name].words for name in names if readings[name].words]
        measures = measure(sets[place], tokenizers[0] if tokenizers else None, records)
        readers = [_reader(name, streams[name]) for name in names]
        warnings = [
            each for one in readers for each in warnings_of(sets[place], measures, *one[1:])
        ]
        seen.append(Seen(sets[place], measures, readers, list(dict.fromkeys(warnings))))
    return seen


def _reader(name: str, stream: Stream) -> Reader:
    shapes = [spec.shape for spec in stream.example.values() if spec.dtype is np.uint8]
    side = max((shape[0] for shape in shapes if len(shape) == 3), default=0)
    length = stream.example["text"].shape[0] if "text" in stream.example else 0
    return Reader(name, side, length, stream.batch_size)


def _in_short(seen: Sequence[Seen]) -> list[Child]:
    """Returns the warnings, the worst first."""
    warnings = [(verdict, each.prepared.name) for each in seen for verdict in each.warnings]
    if not warnings:
        return [line(Verdict(Level.GOOD, "nothing unusual", "No check found a fault."))]
    worst_first = sorted(warnings, key=lambda pair: pair[0].level is not Level.BAD)
    return [line(verdict, element("strong", f"{name}:")) for verdict, name in worst_first]


def _rows_section(name: str, examples: Examples, reading: Reading, count: int) -> Section:
    rows = [examples[index] for index in range(count)]
    batch = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    shown = read_rows(batch, reading, targets=True)
    legend = row_legend() if any(word.truth for row in shown for word in row.words) else None
    return Section(f"Rows of stream {name}", [legend, row_cards(shown)])


def _set_section(each: Seen) -> Section:
    measures, prepared = each.measures, each.prepared
    of = f"{measures.looked_at:,} of {prepared.count(TRAIN):,} training records, evenly spaced"
    readers = ", ".join(reader.stream for reader in each.readers)
    body: list[Child] = [note(f"Streams that read it: {readers}. Measured on {of}.")]
    sides = [reader.side for reader in each.readers if reader.side]
    lengths = [reader.length for reader in each.readers if reader.length]
    if panels := data_panels(measures, sides, lengths):
        body.append(panel_row(panels))
    body.append(table("In numbers", ["Measure", "Value"], _numbers(each)))
    return Section(f"Set {prepared.name}", body)


def _numbers(each: Seen) -> Iterator[list[Child]]:
    measures = each.measures
    for what, (different, records) in repeated(each.prepared).items():
        yield [f"different {what} in the training split", f"{different:,} of {records:,} records"]
    for reader in each.readers:
        if len(measures.lengths) and reader.length:
            cut = int((measures.lengths > reader.length).sum())
            share = f"{cut:,} of {len(measures.lengths):,} ({cut / len(measures.lengths):.1%})"
            yield [f"texts that stream {reader.stream} cuts after {reader.length} pieces", share]
    if measures.pieces:
        yield ["unknown word pieces", f"{measures.unknown / measures.pieces:.2%}"]
    if len(measures.widths):
        shorter = np.minimum(measures.widths, measures.heights)
        low, middle, high = np.quantile(shorter, [0.05, 0.5, 0.95])
        yield ["shorter side: 5%, median, 95%", f"{low:.0f}, {middle:.0f}, {high:.0f} pixels"]
    out = {**each.prepared.meta.get("dropped", {}), **each.prepared.meta.get("left_out", {})}
    for reason, count in out.items():
        yield [f"left out: {reason.replace('_', ' ')}", f"{count:,}"]
