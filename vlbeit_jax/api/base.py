"""What all abilities of a model share: its parameters, its tokenizers, and what it can do."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.api.retriever import Retriever
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.text import TextTokenizer, has_words
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.shapes import Int, Tree
from vlbeit_jax.tasks.visual_tokens import VisualTokens

Predict = Callable[[Records, int], list[dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Predictor:
    """What a fine-tuned run predicts.

    Attributes:
      task: kind of its task, for messages.
      method: that gives its predictions (``tasks.base.FineTuned``).
      needs: of a record: ``image``, ``images``, ``text``, ``captions``.
      predict: from records and a number of answers to a prediction per record.
      classes: names, of a run with a list of classes.
      retriever: embeds images and texts for search; None if the run was not trained for it.
    """

    task: str
    method: str
    needs: frozenset[str]
    predict: Predict
    classes: tuple[str, ...] = ()
    retriever: Retriever | None = None


class Opened:
    """An open model; each ability is a class of its own that inherits from it.

    Attributes:
      folder: where it lies.
      step: of its checkpoint.
      config: sizes of its network.
    """

    def __init__(
        self,
        folder: str,
        step: int,
        config: ModelConfig,
        params: Tree,
        text: TextTokenizer | None,
        visual: VisualTokens | None,
        predictor: Predictor | None,
    ):
        """Takes what ``api.load`` has opened."""
        self.folder, self.step, self.config = folder, step, config
        self._params, self._text, self._visual = params, text, visual
        self._predictor = predictor

    def _rows(self, texts: Sequence[Any], length: int = 0) -> Int[np.ndarray, "A L"]:
        if not texts:
            raise UsageError("texts is an empty list: give at least one")
        tokenizer, length = self._tokenizer(), length or self.config.text_positions
        return np.stack([tokenizer.encode_row(words_of(text), length) for text in texts])

    def _tokenizer(self) -> TextTokenizer:
        if self._text is None:
            raise UsageError(
                f"{self.folder} has no text tokenizer: give one with "
                "vlbeit_jax.load(..., text_tokenizer=FOLDER)"
            )
        return self._text

    def _require(self, parameters: str, what: str) -> None:
        if parameters not in self._params:
            raise UsageError(
                f"the model in {self.folder} has no parameters for {what}: it was not trained on "
                "them"
            )

    def _predictor_for(self, method: str, asked: str = "") -> Predictor:
        """Returns what predicts by a method; messages call it ``asked``, if that is given."""
        asked = asked or method
        if self._predictor is None:
            raise UsageError(
                f"{asked} needs a fine-tuned model, but {self.folder} is a pretrained one; "
                "docs/finetune.md shows how to fine-tune it"
            )
        if self._predictor.method != method:
            raise UsageError(
                f"{asked} needs another model: {self.folder} was fine-tuned for "
                f"{self._predictor.task}, whose method is {self._predictor.method}; "
                "docs/python.md lists the task of each method"
            )
        return self._predictor

    @property
    def _network(self) -> VLBEiT:
        return _network(self.config)


@functools.cache
def _network(config: ModelConfig) -> VLBEiT:
    return VLBEiT(dataclasses.replace(config, drop_path=0.0))


def checked_top(top: Any) -> int:
    """Returns ``top``, a number of answers to list.

    Raises:
      UsageError: it is not a whole number of at least 1.
    """
    if isinstance(top, bool) or not isinstance(top, int | np.integer) or top < 1:
        raise UsageError(f"top={top!r}: give how many answers to list, a whole number from 1")
    return int(top)


def words_of(text: Any) -> str:
    """Returns a text.

    Raises:
      UsageError: it is no string, or has no words.
    """
    if not isinstance(text, str):
        raise UsageError(f"{text!r} is no text: give a string")
    if not has_words(text):
        raise UsageError(f"the text {text!r} has no words: it needs a letter, a number or a symbol")
    return text
