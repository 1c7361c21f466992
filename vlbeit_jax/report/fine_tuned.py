"""The page of a fine-tuned run: what its evaluation wrote, and examples of its answers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.data.identity import TEST, TRAIN, VALIDATION
from vlbeit_jax.data.records import ConcatRecords, Records
from vlbeit_jax.data.source import PreparedSet, open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.report import figures
from vlbeit_jax.report.answers import answer_cards
from vlbeit_jax.report.attention import attention_sections
from vlbeit_jax.report.content import SHOWN, Asked, Content, curves, line
from vlbeit_jax.report.data import Use, scored_by, sets_at
from vlbeit_jax.report.judged import Judged, is_judged, judged
from vlbeit_jax.report.markup import Child, Section, definitions, element, folded, note, table
from vlbeit_jax.report.markup import words as paragraph
from vlbeit_jax.report.samples import spread
from vlbeit_jax.report.verdicts import Level, Verdict
from vlbeit_jax.runtime.finetuned import EMA, RAW, FineTunedRun
from vlbeit_jax.runtime.metrics_file import read_metrics
from vlbeit_jax.tasks.base import FineTuned
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.training.mesh import make_mesh
from vlbeit_jax.training.schedule import Schedule

SHOWN_CLASSES = 20
SHARES = {"accuracy": "Accuracy", "iou": "IoU"}  # Of a class, by their names on the page.


def content(asked: Asked) -> Content:
    """Returns the page of a fine-tuned run.

    Raises:
      UsageError: the run is of a task without an evaluation, or the results are of another one.
    """
    config = read_config(asked.folder)
    opened = config.task.open(asked.folder)
    if not isinstance(opened, FineTuned):
        raise UsageError(f"there is no page for a run of task {config.task.kind!r}")
    protocol = (asked.results or {}).get("protocol", {})
    if asked.results is not None and protocol.get("task") != config.task.kind:
        raise UsageError(
            f"--results is of {protocol.get('task', 'a pretraining run')}, but {asked.folder} is a "
            f"run of {config.task.kind}; give what vlbeit_jax.evaluate --from={asked.folder} wrote"
        )
    run = FineTunedRun.open(asked.folder, config, opened, protocol.get("weights", RAW))
    metrics = read_metrics(asked.folder)
    judgements = judged(asked.results, metrics)
    streams = [getattr(config.task, name) for name in Schedule.parse(config.task.schedule).streams]
    uses = [Use(place, "training") for stream in streams for place in stream.sources]
    uses += scored_by(asked.results)
    sections = [_figures(asked.results, judgements, run.step)]
    sections += _examples(run, asked, protocol.get("split", ""), [use.place for use in uses])
    if panels := figures.loss_panels(metrics):
        told = note("Dots are held-out records.")
        shown = [told, curves(panels, asked.out, "loss")]
        sections.append(Section("Course of the training", shown))
    return Content(
        what=f"Fine-tuning ({config.task.kind.replace('_', ' ')}): a model learns to answer "
        "from annotated examples.",
        in_short=[line(each) for each in _warnings(asked.results, run.step)]
        + [
            line(each.verdict, element("strong", each.title), f": {each.shown(each.value)}.")
            for each in judgements
            if each.verdict.level is not Level.NONE
        ],
        sections=sections,
        uses=uses,
        step=run.step,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(run.params)),
    )


def _figures(
    results: Mapping[str, Any] | None,
    judgements: Sequence[Judged],
    step: int,
) -> Section:
    body: list[Child] = []
    if results is None:
        body.append(
            note(
                "These are the last figures of the run's own log. For intervals and the protocol, "
                "run python -m vlbeit_jax.evaluate --from=RUN --data=SET --json=FILE, then give "
                "--results."
            )
        )
    else:
        body += [element("p", each.cell()) for each in _warnings(results, step)]
    largest = 1.15 * max((each.value for each in judgements), default=1.0)
    rows = [each.row(largest) for each in judgements]
    head = ("What is measured", "Value", "Baseline", "Verdict")
    caption = "Figures on annotated records. The dashed line of a bar is the baseline."
    body.append(table(caption, head, rows) if rows else paragraph("There are no figures yet."))
    if results is not None:
        body += _details(results)
    return Section("How well it answers", body)


def _warnings(results: Mapping[str, Any] | None, step: int) -> Iterator[Verdict]:
    """Yields what a reader must know before the figures."""
    protocol = results["protocol"] if results else {"split": "", "step": step}
    if protocol["split"] == TRAIN:
        reason = "The figures are of records that the run was trained on, not of new ones."
        yield Verdict(Level.BAD, "training data", reason)
    if protocol["step"] != step:
        reason = f"The figures are of step {protocol['step']:,}, the run is at step {step:,}."
        yield Verdict(Level.UNCLEAR, "another step", reason)


def _details(results: Mapping[str, Any]) -> Iterator[Child]:
    if "by_class" in results:
        worst = sorted(results["by_class"].items(), key=lambda each: each[1]["accuracy"])
        shares = [name for name in SHARES if name in worst[0][1]]
        rows = [
            [name, *(f"{of_class[each]:.1%}" for each in shares), f"{of_class['count']:,}"]
            for name, of_class in worst[:SHOWN_CLASSES]
        ]
        title = f"Accuracy by class: {len(rows)} of {len(worst)}, the lowest first"
        counted = "Pixels" if "iou" in shares else "Records"
        head = ("Class", *(SHARES[each] for each in shares), counted)
        yield folded(title, table("Accuracy by class", head, rows))
    others = [
        (name, f"{value:.6g}")
        for name, value in results["metrics"].items()
        if isinstance(value, (int, float)) and not is_judged(name)
    ]
    told = [(name.replace("_", " "), _plain(each)) for name, each in results["protocol"].items()]
    yield folded("All other figures", definitions(others)) if others else None
    yield folded("How the figures were measured", definitions(told))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _examples(run: FineTunedRun, asked: Asked, split: str, known: Sequence[str]) -> list[Section]:
    kind = run.opened.kind
    sets = [open_set(place, kind) for place in asked.places] or sets_at(known, kind)
    records = ConcatRecords([each.records(name) for each in sets for name in _split(each, split)])
    if not len(records):
        return []
    examples = Section("Examples", _answered(run, spread(records, SHOWN)))
    return [examples, *_attention(run, records, asked)]


def _attention(run: FineTunedRun, records: Records, asked: Asked) -> list[Section]:
    """Returns where the model looks; nothing of a model without images."""
    opened: Any = run.opened
    if "image" not in records[0]:
        return []
    # A caption is no input of a model that writes or chooses captions.
    reads = "text" in opened.needs
    text = (lambda: (opened.text, opened.stream.text_length)) if reads else None
    return attention_sections(opened.task.model, run.params, records, text, asked.out)


def _split(prepared: PreparedSet, wanted: str) -> list[str]:
    """Returns the split of which examples are shown, as ``vlbeit_jax.evaluate`` chooses it."""
    splits = [wanted] if wanted else [TEST, VALIDATION]
    return [name for name in splits if prepared.count(name)][:1]


def _answered(run: FineTunedRun, records: Records) -> list[Child]:
    weights = "the averaged parameters" if run.weights == EMA else "the parameters"
    candidates = with_candidates(records, run.opened.needs)
    predicted = list(run.predict(candidates, 3, make_mesh(MeshConfig())))
    told = f"Answers of {weights} of step {run.step:,}"
    told += ", the likeliest first." if "top" in predicted[0] else "."
    if "captions" in run.opened.needs:
        told += " The model chooses among the captions of all pictures shown."
    chosen = "The records are evenly spaced over the data; nobody picked them."
    return [paragraph(told), note(chosen), answer_cards(records, predicted)]


def with_candidates(records: Records, needs: Any) -> Records:
    """Returns records for prediction: where a caption is chosen, among those of all records."""
    rows = [records[index] for index in range(len(records))]
    if "captions" not in needs:
        return rows
    captions = list(dict.fromkeys(row["captions"][0] for row in rows))
    return [{**row, "captions": captions} for row in rows]
