"""What a run keeps of its inputs, in its own folder."""

import json
from collections.abc import Sequence
from pathlib import Path

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError

TEXT_TOKENIZER, VISUAL_TOKENIZER = "text_tokenizer", "visual_tokenizer"
CLASSES = "classes.json"


def open_text_tokenizer(place: str | Path, model: ModelConfig) -> TextTokenizer:
    """Opens a text tokenizer.

    Raises:
      UsageError: there is none, or it has another number of word pieces than the model.
    """
    tokenizer = TextTokenizer(place)
    if tokenizer.vocabulary != model.vocabulary:
        raise UsageError(
            f"the text tokenizer in {tokenizer.folder} has {tokenizer.vocabulary} pieces, but "
            f"task.model.vocabulary={model.vocabulary}"
        )
    return tokenizer


def write_classes(folder: Path, names: Sequence[str]) -> None:
    """Writes the names of classes, in the order of the logits."""
    (folder / CLASSES).write_text(json.dumps(list(names), indent=1, ensure_ascii=False) + "\n")


def read_classes(folder: Path) -> tuple[str, ...]:
    """Reads what ``write_classes`` wrote.

    Raises:
      UsageError: the file is missing or cannot be read.
    """
    try:
        return tuple(json.loads((folder / CLASSES).read_text()))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{folder / CLASSES}: cannot be read ({error}); copy the run's whole folder again"
        ) from error
