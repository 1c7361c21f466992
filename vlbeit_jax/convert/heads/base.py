"""What an export needs to know of a head."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vlbeit_jax.convert.rules import Rule
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.text import TextTokenizer


class Output(NamedTuple):
    """An output of a network.

    Attributes:
      method: that computes it, of the network and of its class in ``vlbeit_finetuned.py``.
      inputs: names of its arguments, in order: "image", "text" or both.
    """

    method: str
    inputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Head:
    """A head, and what its network is evaluated by.

    Attributes:
      kind: the network's name in ``vlbeit_finetuned.py``.
      rules: from the network to the rules of all parameters above the backbone.
      describe: from the open task to what the network's class needs besides the backbone's
        configuration, ready for JSON.
      outputs: from the network to its outputs by name.
      examples: from the open task, records and the results of our evaluation to the arrays that
        ``evaluate_finetuned.py`` reads.
    """

    kind: str
    rules: Callable[[Any], list[Rule]]
    describe: Callable[[Any], dict[str, Any]]
    outputs: Callable[[Any], Mapping[str, Output]]
    examples: Callable[[Any, Records, Mapping[str, Any]], dict[str, np.ndarray]]


def text_rows(tokenizer: TextTokenizer, texts: Sequence[str], length: int) -> np.ndarray:
    """Returns word pieces Int32[A, length]."""
    return np.stack([tokenizer.encode_row(text, length) for text in texts])
