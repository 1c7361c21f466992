"""Classification of emoji by their pictures."""

import numpy as np

from tools.transfer import probing
from tools.transfer.by_folds import FoldTask, Record, Rows, records_of
from tools.transfer.floors import pixel_floors, small
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.identity import TEST
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.shapes import Float
from vlbeit_jax.types import Kind


def _right(record: Record, said: str) -> float:
    return float(said == as_text(record["label"]))


def _floors(sets: list[PreparedSet], rows: Rows) -> dict[str, Float[np.ndarray, " A"]]:
    """Returns whether the majority class and classifiers of pixels are right, in the same folds."""
    records = [record for each in sets for record in records_of(each, TEST)]
    classes = list(sets[0].meta["classes"])
    labels = np.array([classes.index(as_text(record["label"])) for record in records])
    pixels = np.stack([small(decode(record["image"])) for record in records])
    return pixel_floors(pixels, probing.Labelled(labels, rows.groups, len(classes)))


TASK = FoldTask(
    name="emoji_category",
    kind=Kind.LABELLED_IMAGES,
    stream="image",
    rates={"pretrained": (1.6e-2, 8e-3, 4e-3), "random": (4e-3, 2e-3, 1e-3)},
    settled={"pretrained": 8e-3, "random": 2e-3},
    said="label",
    right=_right,
    floors=_floors,
)
