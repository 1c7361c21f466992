"""The report as one HTML file that needs nothing else, with its pictures beside it as PNG."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlbeit_jax.places import appearing
from vlbeit_jax.report import fine_tuned, pretraining, tokenizer
from vlbeit_jax.report.configuration import configuration_section
from vlbeit_jax.report.content import Asked, Content
from vlbeit_jax.report.data import data_section
from vlbeit_jax.report.facts import description_of, run_section
from vlbeit_jax.report.markup import Html, Section, document, element
from vlbeit_jax.report.style import STYLE
from vlbeit_jax.runtime.metrics_file import read_metrics
from vlbeit_jax.storage import explains_storage
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.tasks.vqkd import VQKD

PAGE = "report.html"
# Pages that read settings of their own task. Every other task is a fine-tuned one, whose page asks
# only for its protocol.
PAGES = ((Pretrain, pretraining.content), (VQKD, tokenizer.content))


def write_report(
    folder: pathlib.Path,
    places: Sequence[str],
    results: Mapping[str, Any] | None,
    out: pathlib.Path,
) -> pathlib.Path:
    """Writes ``out/report.html`` and its pictures.

    Args:
      folder: of the run.
      places: prepared sets whose held-out part is shown; empty: those of the run.
      results: what ``vlbeit_jax.evaluate`` wrote; None: the last figures of the run's log.
      out: an existing folder.

    Returns:
      The page's path.

    Raises:
      UsageError: the run has no checkpoint yet, or the results or the data do not belong to it.
      StorageError: there is no room for the pictures or the page; there is no page then.
    """
    config, asked = read_config(folder), Asked(folder, places, results, out)
    with explains_storage(out):
        page = _page(config, _content_for(config.task)(asked), asked)
        with appearing(out / PAGE) as file:  # After its pictures.
            file.write(page)
    return out / PAGE


def _content_for(task: Any) -> Callable[[Asked], Content]:
    """Returns what makes the page of a task: of one of ``PAGES``, or of a task derived from it."""
    return next(
        (content for known, content in PAGES if isinstance(task, known)), fine_tuned.content
    )


def _page(config: Config, content: Content, asked: Asked) -> Html:
    folder = asked.folder
    description, metrics = description_of(folder, content.step), read_metrics(folder)
    sections: list[Section] = [
        *content.sections,
        data_section(content.uses, description),
        run_section(folder, config, description, content, metrics),
        configuration_section(config, asked.out),
    ]
    links = (element("li", element("a", each.title, href=f"#{each.anchor}")) for each in sections)
    name = folder.resolve().name
    short = element("div", element("ul", content.in_short), class_="short")
    return document(
        f"VL-BEiT run {name}",
        STYLE,
        element("h1", f"VL-BEiT run {name}"),
        element("p", content.what),
        short if content.in_short else None,
        element("nav", element("ul", links), aria_label="Contents"),
        *(each.markup() for each in sections),
    )
