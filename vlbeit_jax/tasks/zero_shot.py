"""Classifies pictures by the names of classes, with a model that was trained to compare them.

CLIP's way (arXiv 2103.00020, section 3.1.4): a class is the mean of the vectors of several texts
about it, and a picture belongs to the class with the largest cosine.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vlbeit_jax.config.parse import fingerprint
from vlbeit_jax.data.class_names import PLACE, ClassTexts
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.records import ConcatRecords, Records
from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.classification import Answers, negative_log_likelihood, ranks
from vlbeit_jax.metrics.interval import mean_interval
from vlbeit_jax.shapes import Float, Tree
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.tasks.open_fine_tuned import best_of, groups_of

TIES = "a class whose cosine is at least the right one's counts as more likely"


@runtime_checkable
class ComparesClasses(Protocol):
    """An open task whose model compares pictures with texts."""

    def class_vectors(
        self, params: Tree, classes: ClassTexts, place: Place
    ) -> Float[np.ndarray, "C E"]:
        """Returns a unit vector for each class; see ``mean_directions``."""
        ...

    def cosines(
        self, params: Tree, records: Records, vectors: Float[np.ndarray, "C E"], place: Place
    ) -> Float[np.ndarray, "A C"]:
        """Returns the cosine of each record's picture with each class, float32."""
        ...

    def scale(self, params: Tree) -> float:
        """Returns what cosines are multiplied by to be logits."""
        ...


def mean_directions(
    texts: Float[np.ndarray, "texts E"], classes: ClassTexts
) -> Float[np.ndarray, "C E"]:
    """Returns a unit vector for each class: the direction of the mean of its texts' vectors.

    Args:
      texts: unit vectors of ``classes.texts``.
      classes: whose texts they are.
    """
    mean = texts.reshape(len(classes.names), len(classes.templates), -1).mean(axis=1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def classifier(
    opened: ComparesClasses, params: Tree, classes: ClassTexts, top: int, place: Place
) -> Callable[[Records], Iterator[dict[str, Any]]]:
    """Returns what gives each record the class of its picture, and the ``top`` best ones.

    With each class comes its cosine. The classes are embedded once, here.

    Args:
      opened: an open task.
      params: on the devices.
      classes: to choose from.
      top: classes to list.
      place: devices.
    """
    vectors = opened.class_vectors(params, classes, place)

    def classify(records: Records) -> Iterator[dict[str, Any]]:
        for row in opened.cosines(params, records, vectors, place):
            listed = best_of(classes.names, row, top)
            yield {"label": listed[0][0], "top": listed}

    return classify


def evaluate_classes(
    opened: ComparesClasses,
    params: Tree,
    sets: Sequence[PreparedSet],
    split: str,
    classes: ClassTexts,
    place: Place,
) -> dict[str, Any]:
    """Returns the accuracy on labelled pictures; see ``FineTuned.evaluate``.

    Args:
      opened: an open task.
      params: on the devices.
      sets: of labelled pictures, all with the same classes.
      split: of each set.
      classes: in the order of the sets' classes.
      place: devices.

    Raises:
      UsageError: the sets have another number of classes, or other ones than each other.
    """
    listed = list(sets[0].meta["classes"])
    for each in sets:
        if list(each.meta["classes"]) != listed or len(listed) != len(classes.names):
            raise UsageError(
                f"{each.folder} has {len(each.meta['classes'])} classes, but --classes names "
                f"{len(classes.names)}; give a name for each class, in the order in which the "
                "set's vlbeit_meta.json lists them, and evaluate sets with other classes one by one"
            )
    records = ConcatRecords([each.records(split) for each in sets])
    vectors = opened.class_vectors(params, classes, place)
    cosines = opened.cosines(params, records, vectors, place)
    number = {name: place for place, name in enumerate(listed)}
    labels = np.array([number[as_text(records[i]["label"])] for i in range(len(records))])
    losses = negative_log_likelihood(opened.scale(params) * cosines, labels)
    answers = Answers(ranks(cosines, labels), labels, losses)
    groups = groups_of(records)
    interval = mean_interval((answers.rank == 0).astype(float), groups)
    return {
        "metrics": answers.summary(len(listed)) | {"accuracy_interval": interval[1:]},
        "by_class": answers.by_name(classes.names),
        "groups": len(np.unique(groups)),
        "protocol": {
            "metric": "zero-shot: share of pictures whose class has the largest cosine (top 1), or "
            "one of the five largest (top 5)",
            "ties": TIES,
            "interval": "95%, bootstrap over groups",
            "class_names": fingerprint(list(classes.names)),
            "templates": list(classes.templates),
            "template_place": PLACE,
            "view": "squash",
        },
    }
