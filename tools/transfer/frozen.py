"""The frozen part of the transfer study: probes of emoji pictures and names, without training.

    python -m tools.transfer.frozen RUN OUT

RUN is a finished pretraining run. OUT gets the results and the protocol of three tasks:
emoji_frozen (the class of a picture, with all labels), emoji_frozen_10 (the same with ten labels
per class) and text_category (the class of a name). Each task compares the run with three random
starts of the same network. The run has trained on no picture of an emoji.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tools import command
from tools.transfer import probing
from tools.transfer.floors import pixel_floors, small
from tools.transfer.results import comparison, table
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.identity import SPLITS
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.source import PreparedSet, open_set
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.features import Features
from vlbeit_jax.runtime.pretrained import open_run
from vlbeit_jax.shapes import Float
from vlbeit_jax.tasks.features import EVERY_LAYER
from vlbeit_jax.training.saved_run import finished_step, tree_fingerprint

SET = "sample:emoji"
RANDOM_STARTS = 3
SHOTS, DRAWS = 10, 3
Vectors = Mapping[str, list[np.ndarray]]  # By start; one matrix per network.


def study(folder: pathlib.Path) -> dict[str, Any]:
    """Returns ``results`` by task, and the ``protocol`` that led to them.

    Raises:
      UsageError: the folder does not belong to a finished pretraining run, or the run was trained
        without texts.
    """
    run, found = open_run(folder), open_set(SET)
    finished_step(folder, run.config.run.steps)
    records, all_labels = labelled_emoji(found)
    groups = all_labels.groups
    images = [record["image"] for record in records]
    names = [record["names"][0].decode() for record in records]
    arms = {
        "pretrained": [Features.of(run, EVERY_LAYER)],
        "random": [
            Features.of_random_start(run, seed, EVERY_LAYER) for seed in range(RANDOM_STARTS)
        ],
    }
    width = run.model.task.model.width
    protocol: dict[str, Any] = {
        "data": {"set": SET, "fingerprint": found.fingerprint, "rows": len(records)},
        "groups": len(set(groups)),
        "run": {"step": run.step, "weights": tree_fingerprint(run.params)},
        "features": "of all tokens but CLS, image or text alone: their mean after the final norm; "
        "or their means as embeddings, after every block and after the final norm, joined; or "
        "these means and the standard deviations",
        "image": {"resolution": run.model.task.model.image_size, "view": "squash"},
        "text_tokenizer": run.model.text.fingerprint,
        "pretraining_saw_the_set": not run.trained_on.isdisjoint(found.contains),
        "random_starts": RANDOM_STARTS,
        "chosen": {},
    }
    results = {}
    few_labels = dataclasses.replace(all_labels, shots=SHOTS, draws=DRAWS)

    def compare(task: str, vectors: Vectors, data: probing.Labelled, floors: dict) -> None:
        found = {arm: probing.best_ridge(kinds(each, width), data) for arm, each in vectors.items()}
        pretrained, random = (each.right for each in found.values())
        results[task] = comparison(pretrained, random, floors, groups, RANDOM_STARTS)
        protocol["chosen"][task] = {arm: each.told() for arm, each in found.items()}

    pictures = {arm: [each.images(images) for each in starts] for arm, starts in arms.items()}
    pixels = np.stack([small(decode(image)) for image in images])
    compare("emoji_frozen", pictures, all_labels, pixel_floors(pixels, all_labels))
    compare("emoji_frozen_10", pictures, few_labels, pixel_floors(pixels, few_labels))
    texts = {arm: [each.texts(names) for each in starts] for arm, starts in arms.items()}
    floors = {
        "majority": probing.majority(all_labels),
        "bag_of_pieces_ridge": probing.ridge([_bag(names, run.model.text)], all_labels).right,
    }
    compare("text_category", texts, all_labels, floors)
    return {"results": results, "protocol": protocol}


def labelled_emoji(found: PreparedSet) -> tuple[list[Mapping[str, Any]], probing.Labelled]:
    """Returns the records of all splits, with their classes and groups."""
    records = [found.records(split)[i] for split in SPLITS for i in range(found.count(split))]
    classes = list(found.meta["classes"])
    labels = np.array([classes.index(as_text(record["label"])) for record in records])
    groups = np.array([as_text(record["group"]) for record in records])
    return records, probing.Labelled(labels, groups, len(classes))


def kinds(vectors: list[np.ndarray], width: int) -> dict[str, list[np.ndarray]]:
    """Returns what a probe may choose from the vectors of ``EVERY_LAYER``."""
    # Each layer has ``width`` means, then as many deviations.
    layers = [each.reshape(len(each), -1, 2, width) for each in vectors]
    means = [each[:, :, 0].reshape(len(each), -1) for each in layers]
    return {
        "means and deviations of every layer": vectors,
        "means of every layer": means,
        "mean of the last layer": [each[:, -width:] for each in means],
    }


def _bag(texts: list[str], tokenizer: TextTokenizer) -> Float[np.ndarray, "A V"]:
    """Returns how often each word piece occurs in each text."""
    pieces = [tokenizer.encode(text) for text in texts]
    return np.stack([np.bincount(each, minlength=tokenizer.vocabulary) for each in pieces]) * 1.0


def main(arguments: list[str]) -> None:
    """Writes OUT and prints a table."""
    if len(arguments) != 2:
        raise UsageError("usage: python -m tools.transfer.frozen RUN OUT")
    found = study(pathlib.Path(arguments[0]))
    pathlib.Path(arguments[1]).write_text(json.dumps(found, indent=1) + "\n")
    print(table(found["results"]))


if __name__ == "__main__":
    command.run(main, __doc__)
