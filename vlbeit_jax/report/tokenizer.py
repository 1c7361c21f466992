"""The page of a run that trains the visual tokenizer alone."""

import jax

from vlbeit_jax.data.examples.images import Views
from vlbeit_jax.data.identity import VALIDATION
from vlbeit_jax.data.records import ConcatRecords
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.report import panels
from vlbeit_jax.report.codebook import codebook_section
from vlbeit_jax.report.content import Asked, Content, line
from vlbeit_jax.report.data import Use, sets_at
from vlbeit_jax.report.examples import token_cards
from vlbeit_jax.report.markup import Child, Section, element, note, words
from vlbeit_jax.report.samples import spread, through_tokens
from vlbeit_jax.runtime.metrics_file import read_metrics
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.tasks.visual_tokens import open_visual_tokens

PICTURES = 12


def content(asked: Asked) -> Content:
    """Returns the page of a finished run of the visual tokenizer.

    Raises:
      UsageError: the run has not finished, or there are results, which such a run has not.
    """
    if asked.results is not None:
        raise UsageError(
            f"{asked.folder} is a run of the visual tokenizer, which vlbeit_jax.evaluate does not "
            "measure; leave --results out"
        )
    task, visual = read_config(asked.folder).task, open_visual_tokens(asked.folder)
    kinds = task.image.kinds
    uses = [Use(place, "training: pictures") for place in task.image.sources]
    given = [open_set(place, *kinds) for place in asked.places]
    sets = given or sets_at(task.image.sources, *kinds)
    records = ConcatRecords([each.records(VALIDATION) for each in sets if each.count(VALIDATION)])
    sections, in_short = [], []
    if len(records):
        views = Views(task.image, task.model.image_size, False)
        metrics = read_metrics(asked.folder)
        section, verdict = codebook_section(visual, views, records, metrics, asked.out)
        in_short.append(line(verdict, element("strong", "Visual tokens:")))
        shown = through_tokens(visual, views, spread(records, PICTURES))
        sections = [section, Section("What visual tokens keep of a picture", _drawn(asked, shown))]
    else:
        told = "No held-out pictures can be opened. Give prepared pictures with --data=SET."
        sections = [Section("Visual tokens", [words(told)])]
    return Content(
        what="A visual tokenizer: it learns to describe each patch of a picture by one number.",
        in_short=in_short,
        sections=sections,
        uses=[*uses, *(Use(place, "examples of this page") for place in asked.places)],
        step=visual.step,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(visual.frozen["params"])),
    )


def _drawn(asked: Asked, shown: tuple | None) -> list[Child]:
    if shown is None:
        told = (
            "The decoder of this tokenizer predicts features and not pixels, so nothing can be "
            "drawn from its tokens."
        )
        return [words(told)]
    images, drawn = shown
    rows = {"original": images, "from visual\ntokens": drawn}
    (asked.out / "pictures.png").write_bytes(panels.grid(rows, [""] * len(images)))
    return [
        words(
            "The right picture of each card is drawn from the visual tokens of the left one. A "
            "model that learns to predict these tokens never learns what is missing in it."
        ),
        note("The pictures are held out and evenly spaced over the data; nobody picked them."),
        token_cards(images, drawn),
    ]
