"""Which of a model's vectors describes a picture or a text best: a table.

    python -m tools.transfer.vectors RUN OUT

RUN is a pretraining run that has seen no emoji. For each vector that Model.encode gives of an emoji
or of its name, the table has the share of emoji whose class two classifiers find, over three folds:
the vote of the 20 training rows with the largest cosines, and the ridge regression of
tools.transfer.frozen. OUT gets the figures.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

import vlbeit_jax
from tools import command
from tools.transfer.frozen import SET, labelled_emoji
from tools.transfer.probing import Labelled, nearest, ridge
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.probes import unit_rows

NEIGHBOURS = 20
Figures = dict[str, dict[str, float]]


def vectors(encoded: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yields each pooled vector of images and texts, with a name."""
    layers = [("after the final norm", encoded)]
    layers += [(f"after block {number}", x) for number, x in sorted(encoded.blocks.items())]
    for where, states in layers:
        for name in ("image", "image_cls", "text", "text_cls"):
            yield f"{name} {where}", getattr(states, name)
    for name in ("image", "text"):
        each = [getattr(states, name) for _, states in reversed(layers)]
        yield f"{name} after every block and the norm, joined", np.concatenate(each, axis=1)


def figures(folder: str) -> Figures:
    """Returns both shares for each vector of a run."""
    records, data = labelled_emoji(open_set(SET))
    model = vlbeit_jax.load(folder)
    encoded = model.encode(
        images=[decode(record["image"]) for record in records],
        texts=[record["names"][0].decode() for record in records],
        blocks=range(model.config.depth),
    )
    return {name: _shares(found, data) for name, found in vectors(encoded)}


def _shares(found: np.ndarray, data: Labelled) -> dict[str, float]:
    near = nearest(unit_rows(found), data, NEIGHBOURS)
    return {"neighbours": float(near.mean()), "ridge": float(ridge([found], data).right.mean())}


def main(arguments: list[str]) -> None:
    """Writes OUT and prints the table."""
    if len(arguments) != 2:
        raise UsageError("usage: python -m tools.transfer.vectors RUN OUT")
    found = figures(arguments[0])
    pathlib.Path(arguments[1]).write_text(json.dumps(found, indent=1) + "\n")
    print("| vector | 20 neighbours | ridge |\n|---|---|---|")
    for name, shares in found.items():
        print(f"| `{name}` | {shares['neighbours']:.3f} | {shares['ridge']:.3f} |")


if __name__ == "__main__":
    command.run(main, __doc__)
