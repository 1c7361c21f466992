"""What a run keeps of its inputs, in its own folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


def check_start_tokenizer(start: Path, fingerprints: Mapping[str, Any]) -> None:
    """Checks that a run reads texts as its start did.

    Args:
      start: folder of the run or import in ``run.start_from``.
      fingerprints: of the new run.

    Raises:
      UsageError: the start has another text tokenizer.
    """
    place, own = start / TEXT_TOKENIZER, fingerprints.get(TEXT_TOKENIZER)
    if own is None or not place.is_dir():
        return
    other = TextTokenizer(place).fingerprint
    if other != own:
        raise UsageError(
            f"run.start_from={start} was trained with text tokenizer {other}, but "
            f"task.text_tokenizer is {own}: its words would have the embeddings of others; set "
            f"config.task.text_tokenizer={place}"
        )


def write_classes(folder: Path, names: Sequence[str]) -> None:
    """Writes the names of classes, in the order of the logits."""
    (folder / CLASSES).write_text(json.dumps(list(names), indent=1, ensure_ascii=False) + "\n")


def read_classes(folder: Path) -> tuple[str, ...]:
    """Reads what ``write_classes`` wrote.

    Raises:
      UsageError: the file is missing or cannot be read.
    """
    try:
        names = json.loads((folder / CLASSES).read_text())
        if not isinstance(names, list):
            raise ValueError("not a list")
        return tuple(names)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{folder / CLASSES}: cannot be read ({error}); copy the run's whole folder again"
        ) from error
