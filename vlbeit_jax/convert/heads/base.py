"""What an export needs to know about a head."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vlbeit_jax.convert.rules import Rule
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.text import TextTokenizer


class Output(NamedTuple):
    """An output of a network.

    Attributes:
      method: name of the method that computes it. The network and its class in
        ``vlbeit_finetuned.py`` both have it.
      inputs: names of its arguments, in order, of "image", "second_image" and "text".
      is_map: whether it is [B, h, w, C] here, and [B, C, h, w] in PyTorch.
    """

    method: str
    inputs: tuple[str, ...]
    is_map: bool = False


@dataclasses.dataclass(frozen=True)
class Head:
    """A head, and the examples that evaluate its network.

    Attributes:
      kind: the network's name in ``vlbeit_finetuned.py``.
      rules: takes the network, and returns the rules of all parameters above the backbone.
      describe: takes the open task, and returns what the network's class needs besides the
        backbone's configuration, ready for JSON.
      outputs: takes the network, and returns its outputs by name.
      examples: takes the open task, records and the results of our evaluation, and returns the
        arrays that ``evaluate_finetuned.py`` reads.
      task: takes the network, and returns the Hugging Face Hub's name of what it does.
      use: what the network is made for, a sentence of the model card.
      files: further files that ``evaluate_finetuned.py`` needs, by their names in the export.
    """

    kind: str
    rules: Callable[[Any], list[Rule]]
    describe: Callable[[Any], dict[str, Any]]
    outputs: Callable[[Any], Mapping[str, Output]]
    examples: Callable[[Any, Records, Mapping[str, Any]], dict[str, np.ndarray]]
    task: Callable[[Any], str]
    use: str
    files: Mapping[str, pathlib.Path] = dataclasses.field(default_factory=dict)


def text_rows(tokenizer: TextTokenizer, texts: Sequence[str], length: int) -> np.ndarray:
    """Returns the word pieces of A texts, Int32[A, length], cut or padded to ``length``."""
    return np.stack([tokenizer.encode_row(text, length) for text in texts])
