"""The report as one HTML file that needs nothing else, with its pictures beside it as PNG."""

import base64
import html
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from vlbeit_jax.config.parse import to_dict
from vlbeit_jax.data.source import VALIDATION, open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.report import figures
from vlbeit_jax.report.samples import Caption, Guess, captions, code_use, pictures, spread
from vlbeit_jax.runtime.pretrained import OpenedRun
from vlbeit_jax.runtime.run_folder import read_metrics
from vlbeit_jax.tasks.assets import VISUAL_TOKENIZER
from vlbeit_jax.types import Kind

SHOWN_IMAGES, SHOWN_CAPTIONS = 10, 12
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222 }
body { max-width: 1100px; margin: 2rem auto; padding: 0 1rem }
img.wide { max-width: 100% }
table { border-collapse: collapse }
td, th { padding: .25rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left }
tr { border-bottom: 1px solid #ddd }
.mask { background: #fde68a }
.hit { color: #15803d; font-weight: 600 }
figure { margin: .5rem 1rem .5rem 0; display: inline-block }
.guess td { text-align: left }
.caption { border-top: 2px solid #bbb; padding: .7rem 0 }
figcaption, .note { color: #666; font-size: 13px }
pre { font-size: 12px }
"""


def write_report(
    run: OpenedRun,
    folder: pathlib.Path,
    place: str,
    results: Mapping[str, Any] | None,
    out: pathlib.Path,
) -> pathlib.Path:
    """Writes ``out/report.html`` and its pictures.

    Args:
      run: the pretraining run.
      folder: its workdir, for the curves.
      place: prepared pairs whose held-back part is shown.
      results: of an evaluation, shown as a table.
      out: an existing folder.

    Returns:
      The page's path.
    """
    pairs = open_set(place, Kind.PAIRS)
    if not pairs.count(VALIDATION):
        raise UsageError(f"{pairs.folder} has no held-back pairs to show")
    records = pairs.records(VALIDATION)
    metrics, visual = read_metrics(folder), read_metrics(folder / VISUAL_TOKENIZER)
    parts = [
        f"<h1>VL-BEiT run {html.escape(str(folder.resolve().name))}</h1>",
        _overview(run, results),
    ]
    shown = {
        "accuracy": ("Masked accuracy against its baselines", figures.accuracy_curves(metrics)),
        "probes": ("Probes of frozen features", figures.probe_curves(metrics)),
        "loss": ("Losses, gradient norm, learning rate", figures.loss_curves(metrics)),
        "codebook": ("Use of the codebook", figures.codebook_use(code_use(run, records), visual)),
        "tokenizer_loss": ("Training of the visual tokenizer", figures.loss_curves(visual)),
    }
    if (found := pictures(run, spread(records, SHOWN_IMAGES))) is not None:
        shown["pictures"] = (
            "Held-back images through predicted visual tokens",
            figures.picture_grid(found),
        )
    for name, (title, png) in shown.items():
        if png is not None:
            (out / f"{name}.png").write_bytes(png)
            parts.append(f"<h2>{title}</h2><img class=wide alt='{title}' src='{_inline(png)}'>")
    parts.append("<h2>Held-back captions: guesses with the right image and with a wrong one</h2>")
    parts.append(
        "<p class=note>Masked pieces are highlighted; an underscore starts a word. "
        "The right answer is green.</p>"
    )
    parts += [_caption(found) for found in captions(run, spread(records, SHOWN_CAPTIONS))]
    config = json.dumps(to_dict(run.config), indent=1)
    parts.append(f"<h2>Configuration</h2><pre>{html.escape(config)}</pre>")
    page = out / "report.html"
    page.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><title>VL-BEiT</title>"
        f"<style>{STYLE}</style>{''.join(parts)}</html>\n"
    )
    return page


def _overview(run: OpenedRun, results: Mapping[str, Any] | None) -> str:
    count = sum(leaf.size for leaf in jax.tree.leaves(run.params))
    text = f"<p>{count:,} parameters, step {run.step} of {run.config.run.steps}.</p>"
    if not results:
        return text
    rows = [
        _row(
            name,
            f"{found['accuracy']:.2%}",
            f"{found['unigram']:.2%}",
            f"{found['chance']:.3%}",
            f"{found['loss']:.3f}",
            found["count"],
        )
        for name, found in results.items()
        if isinstance(found, dict) and "accuracy" in found
    ]
    gains = [
        _row(name, f"{found['value']:+.2%}", f"{found['low']:+.2%} to {found['high']:+.2%}")
        for name, found in results.items()
        if isinstance(found, dict) and "low" in found
    ]
    head = _head("term", "accuracy", "unigram", "chance", "loss", "masked positions")
    gain_head = _head("cross-modal gain", "accuracy points", "95% interval")
    return (
        f"{text}<h2>Held-back data</h2><table>{head}{''.join(rows)}</table>"
        f"<table>{gain_head}{''.join(gains)}</table>"
    )


def _head(*names: str) -> str:
    return f"<tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>"


def _row(*cells: object) -> str:
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _caption(found: Caption) -> str:
    masked = {guess.position for guess in found.guesses}
    pieces = " ".join(
        f"<span class=mask>{html.escape(piece)}</span>" if place in masked else html.escape(piece)
        for place, piece in enumerate(found.pieces)
    )
    images = "".join(
        f"<figure><img alt='{name}' src='{_inline(figures.picture(image))}'>"
        f"<figcaption>{name}</figcaption></figure>"
        for name, image in (("right image", found.image), ("wrong image", found.other))
    )
    rows = "".join(
        _row(
            f"<b>{html.escape(guess.truth)}</b>",
            _guesses(guess, guess.right),
            _guesses(guess, guess.wrong),
        )
        for guess in found.guesses
    )
    head = _head("masked", "with the right image", "with the wrong image")
    return (
        f"<div class=caption>{images}<p>{pieces}</p><table class=guess>{head}{rows}</table></div>"
    )


def _guesses(guess: Guess, found: Sequence[tuple[str, float]]) -> str:
    return ", ".join(
        f"<span class={'hit' if piece == guess.truth else 'miss'}>"
        f"{html.escape(piece)} {share:.0%}</span>"
        for piece, share in found
    )


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
