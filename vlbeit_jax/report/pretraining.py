"""The page of a pretraining run, with any set of streams."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from vlbeit_jax.data.examples.images import Views
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.source import open_set
from vlbeit_jax.report import figures, panels, words
from vlbeit_jax.report.attention import attention_sections
from vlbeit_jax.report.codebook import codebook_section
from vlbeit_jax.report.content import SHOWN, Asked, Content, curves, line
from vlbeit_jax.report.data import Use, scored_by, sets_at
from vlbeit_jax.report.examples import legend, picture_cards, text_examples
from vlbeit_jax.report.markup import Child, Section, element, note
from vlbeit_jax.report.markup import words as paragraph
from vlbeit_jax.report.masked_results import Results, gain_table, term_table
from vlbeit_jax.report.samples import masked_texts, pictures, spread
from vlbeit_jax.runtime.metrics_file import read_metrics
from vlbeit_jax.runtime.pretrained import OpenedRun, open_run, records_by_stream
from vlbeit_jax.tasks.assets import VISUAL_TOKENIZER
from vlbeit_jax.types import Kind

Metrics = Sequence[Mapping[str, Any]]
PICTURES = 12
SHOWN_TEXTS = 3  # At once; the others on request.
NO_DATA = (
    "The data that the run was trained on cannot be opened now, so there are no examples. Give "
    "prepared data with --data=SET."
)


def content(asked: Asked) -> Content:
    """Returns the page of a pretraining run."""
    run, metrics = open_run(asked.folder), read_metrics(asked.folder)
    task = run.config.task
    uses = [
        Use(place, f"training: {words.STREAMS[stream]}")
        for stream in task.used_streams
        for place in getattr(task, stream).sources
    ]
    results = Results.of(run, asked.results, metrics)
    sections, in_short = [_results_section(results)], results.in_short()
    records = _records(run, asked.places, uses)
    if not records:
        sections.append(Section("Examples", [paragraph(NO_DATA)]))
    sections += _examples(run, records, asked)
    if with_images := records.get("image") or records.get("pair"):
        sections += attention_sections(
            run.model.task.model,
            run.params,
            with_images,
            lambda: (run.model.text, run.model.task.pair.text_length),
            asked.out,
            pretraining=True,
        )
        tokenizer_metrics = read_metrics(asked.folder / VISUAL_TOKENIZER)
        views = Views(run.model.task.image, task.model.image_size, False)
        section, verdict = codebook_section(
            run.model.visual, views, with_images, tokenizer_metrics, asked.out
        )
        sections.append(section)
        in_short = [*in_short, line(verdict, element("strong", "Visual tokens:"))]
    sections += _course(metrics, asked)
    named = [words.STREAMS[stream] for stream in task.used_streams]
    return Content(
        what=f"Pretraining: the model learns to fill in what is hidden in {', in '.join(named)}.",
        in_short=in_short,
        sections=sections,
        uses=[*uses, *scored_by(asked.results)],
        step=run.step,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(run.params)),
    )


def _records(run: OpenedRun, places: Sequence[str], uses: Sequence[Use]) -> dict[str, Records]:
    """Returns held-out records of the streams that the run was trained on."""
    sets = [open_set(place) for place in places]
    if not places:
        sets = sets_at([use.place for use in uses], *Kind)
        places = [str(each.folder) for each in sets]
    if not sets:
        return {}
    by_stream = records_by_stream(run, places, sets)
    used = run.config.task.used_streams
    return {stream: records for stream, records in by_stream.items() if stream in used}


def _results_section(results: Results) -> Section:
    body: list[Child] = [
        *results.warnings(),
        term_table(results),
        element("h3", "What the words mean"),
        results.glossary(),
    ]
    if results.pairs_are_trained:
        body += [element("h3", "Do pictures and captions help each other?"), gain_table(results)]
    return Section("How well it fills in what is hidden", body)


def _examples(run: OpenedRun, records: Mapping[str, Records], asked: Asked) -> list[Section]:
    sections = []
    stream = "image" if "image" in records else "pair"
    if stream in records:
        chosen = spread(records[stream], PICTURES)
        if (shown := pictures(run, chosen, stream)) is not None:
            rows = {
                "original": shown.original,
                "masked": shown.masked,
                "from predicted\nvisual tokens": shown.predicted,
                "from its own\nvisual tokens": shown.through_tokens,
            }
            below = [f"{accuracy:.0%} right" for accuracy in shown.accuracy]
            (asked.out / "pictures.png").write_bytes(panels.grid(rows, below))
            beside = "" if stream == "image" else " and what is left of the caption"
            told = paragraph(
                f"The model sees each picture without its grey patches{beside}, and predicts their "
                "visual tokens. The picture is then drawn from the tokens. A perfect model would "
                "reach the last picture of a card: visual tokens keep only a part of a picture."
            )
            sections.append(Section("Hidden patches", [told, picture_cards(shown)]))
    if "pair" in records:
        told = paragraph(
            "Each caption is read with the picture that belongs to it, and with that of another "
            "caption. If the model uses the picture, the right answer is likelier with the right "
            "picture."
        )
        texts = masked_texts(run, spread(records["pair"], SHOWN), "pair")
        shown = text_examples(texts, SHOWN_TEXTS)
        sections.append(Section("Hidden words of captions", [told, legend(), *shown]))
    if "text" in records:
        texts = masked_texts(run, spread(records["text"], SHOWN // 2), "text")
        shown = text_examples(texts, SHOWN_TEXTS)
        sections.append(Section("Hidden words of texts", [legend(), *shown]))
    return [_with_selection(each) for each in sections]


def _with_selection(section: Section) -> Section:
    chosen = note(
        "The examples are held-out records, evenly spaced over the data; nobody picked them."
    )
    return Section(section.title, [chosen, *section.body])


def _course(metrics: Metrics, asked: Asked) -> list[Section]:
    """Returns the curves of training; none for a model whose metrics are not there."""
    body: list[Child] = []
    for title, told, name, shown in (
        (
            "Accuracy at hidden places",
            "Dots are held-out records. If the training curve rises while the dots stay or fall, "
            "the model learns its training data by heart. The dots may also lie above the curve: "
            "in training, pictures are cropped and changed at random.",
            "accuracy",
            figures.accuracy_panels(metrics),
        ),
        (
            "Probes of frozen features",
            "Simple classifiers on the states of the model, which is not trained further.",
            "probes",
            figures.probe_panels(metrics),
        ),
        (
            "Loss",
            "A gradient norm that jumps or grows without end announces trouble. The learning rate "
            "rises during warm-up and then falls.",
            "loss",
            figures.loss_panels(metrics),
        ),
    ):
        if shown:
            body += [element("h3", title), note(told), curves(shown, asked.out, name)]
    return [Section("Course of the training", body)] if body else []
