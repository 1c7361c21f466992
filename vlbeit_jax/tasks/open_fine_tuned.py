"""What all open fine-tuning tasks share."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vlbeit_jax.config.streams import StreamConfig
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.places import copy_tree
from vlbeit_jax.shapes import Float, Int, Tree
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER
from vlbeit_jax.tasks.base import Evaluator, Place
from vlbeit_jax.tasks.figures import Headline
from vlbeit_jax.tasks.one_stream import OneStreamData
from vlbeit_jax.tasks.reading import Arrays, Reading
from vlbeit_jax.training.state import TrainState, declarations
from vlbeit_jax.types import Kind


class OpenFineTuned:
    """Has one stream, no frozen weights and at most a tokenizer; see ``tasks.base.FineTuned``.

    Attributes:
      task: the task's settings, resolved.
      text: the text tokenizer; None if the task has no texts.
      frozen: empty; all parameters are trained.
      chance: accuracy of a guess, by the name of the loss; empty unless the task sets it.
      headlines: figures that log lines show besides; empty unless the task sets it.
      kind: the kind of sets that the task takes.
      method: of a loaded model that predicts as this task does, such as "classify".
      needs: the fields of a record that a prediction needs.
      explained: arrays of a row of which ``_facts`` says everything.
    """

    kind: Kind
    method: ClassVar[str]
    needs: frozenset[str]
    frozen: ClassVar[Tree] = {}
    chance: Mapping[str, float] = {}
    headlines: Sequence[Headline] = ()
    explained: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, task: Any, text: TextTokenizer | None):
        """Takes the task's settings and its text tokenizer."""
        self.task, self.text = task, text

    @property
    def stream(self) -> StreamConfig:
        """Settings of the one stream; the schedule is its name."""
        return getattr(self.task, self.task.schedule)

    @property
    def fingerprints(self) -> dict[str, Any]:
        """The fingerprint of the text tokenizer, if there is one."""
        return {TEXT_TOKENIZER: self.text.fingerprint} if self.text else {}

    def abstract_params(self) -> Tree:
        """Returns the shapes of the parameters."""
        return declarations(self.task.init).shapes

    def abstract_model_state(self) -> Tree:
        """Returns nothing: parameters are all that inference needs."""
        return {}

    def for_inference(self, params: Tree, model_state: Tree) -> Tree:
        """Returns the parameters."""
        return params

    def save_assets(self, folder: Path) -> None:
        """Copies the text tokenizer into a run, which then no longer needs the original."""
        if self.text:
            copy_tree(self.text.folder, folder / TEXT_TOKENIZER)

    def evaluators(self, data: OneStreamData, place: Place) -> Sequence[Evaluator]:
        """Returns one evaluator, which takes the held-out part of the first source."""
        run = functools.partial(self._evaluate_state, data.sets[0], place)
        return [Evaluator("", place.run.evaluate_every, run)]

    def prepare_state(self, state: TrainState, data: OneStreamData, place: Place) -> TrainState:
        """Returns the state unchanged."""
        return state

    def reading(self, stream: str) -> Reading:
        """See ``tasks.reading.Readable``."""
        return Reading(words=self.text, facts=self._facts, hidden=self.explained)

    def _facts(self, row: Arrays) -> Mapping[str, str]:
        """Returns what the numbers of a row mean."""
        return {}

    def evaluate(
        self, params: Tree, sets: Sequence[PreparedSet], split: str, place: Place
    ) -> dict[str, Any]:
        """See ``tasks.base.FineTuned``."""
        raise NotImplementedError

    def predict(
        self, params: Tree, records: Records, top: int, place: Place
    ) -> Iterator[dict[str, Any]]:
        """See ``tasks.base.FineTuned``."""
        raise NotImplementedError

    def _evaluate_state(
        self, held_out: PreparedSet, place: Place, state: TrainState, frozen: Tree
    ) -> dict[str, float]:
        """Returns figures during training; their names start with the name of the loss."""
        raise NotImplementedError

    def _text_protocol(self, texts: Iterable[str]) -> dict[str, Any]:
        """Returns how texts are read, and the share of texts that are too long and cut."""
        if self.text is None:
            return {}
        length = getattr(self.stream, "text_length")  # noqa: B009 (only streams with texts have it)
        cut = [len(self.text.encode(text)) > length - 2 for text in texts]
        return {
            TEXT_TOKENIZER: self.text.fingerprint,
            "text_length": length,
            "share_of_cut_texts": float(np.mean(cut)),
        }


def groups_of(records: Records) -> Int[np.ndarray, " A"]:
    """Returns the number of each record's group; records of one picture are one without a group."""
    all_records = (records[index] for index in range(len(records)))
    groups = [as_text(each["group"] if "group" in each else each["sha256"]) for each in all_records]
    return np.unique(groups, return_inverse=True)[1]


def best_of(
    names: Sequence[str], scores: Float[np.ndarray, " C"], top: int
) -> list[tuple[str, float]]:
    """Returns the ``top`` names with the largest scores; equal scores keep the order of names."""
    best = np.argsort(-scores, kind="stable")[:top]
    return [(names[int(index)], float(scores[index])) for index in best]
