"""What a run keeps of its inputs, in its own folder."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.data.source import open_set
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.training.saved_run import identity
from vlbeit_jax.types import Kind

TEXT_TOKENIZER, VISUAL_TOKENIZER = "text_tokenizer", "visual_tokenizer"
CLASSES = "classes.json"
OTHER_TOKENIZER = (
    "Give the tokenizer that the network was trained with. If pretraining starts from a network "
    "that has another one, name the parameters of its tokens in config.task.fresh"
)
# Parameters with a row or a column for each token of a tokenizer.
_OF_TOKENS = {
    TEXT_TOKENIZER: ("text_embed/words", "language_head/"),
    VISUAL_TOKENIZER: ("vision_head/",),
}


def open_text_tokenizer(place: str | Path, model: ModelConfig) -> TextTokenizer:
    """Opens a text tokenizer.

    Raises:
      UsageError: there is none, or it has another number of word pieces than the model.
    """
    tokenizer = TextTokenizer(place)
    if tokenizer.vocabulary != model.vocabulary:
        raise UsageError(
            f"the text tokenizer in {tokenizer.folder} has {tokenizer.vocabulary} pieces, but "
            f"task.model.vocabulary={model.vocabulary}. {OTHER_TOKENIZER}; for words they are "
            "text_embed/words,language_head/*"
        )
    return tokenizer


def check_start_tokenizers(
    start: Path, fingerprints: Mapping[str, Any], kept: Collection[str]
) -> None:
    """Checks that a run reads and predicts the tokens that its start did.

    Args:
      start: folder of the run or import in ``run.start_from``.
      fingerprints: of the new run.
      kept: names of the parameters that come from the start.

    Raises:
      UsageError: another tokenizer gives the numbers of tokens, but parameters of the start's
        tokens are kept.
    """
    # An import has neither.
    saved = {VISUAL_TOKENIZER: identity(start).get(VISUAL_TOKENIZER)}
    if (start / TEXT_TOKENIZER).is_dir():
        saved[TEXT_TOKENIZER] = TextTokenizer(start / TEXT_TOKENIZER).fingerprint
    for name, prefixes in _OF_TOKENS.items():
        own, other = fingerprints.get(name), saved.get(name)
        wrong = [each for each in kept if each.startswith(prefixes)]
        if None in (own, other) or own == other or not wrong:
            continue
        what = name.replace("_", " ")
        raise UsageError(
            f"run.start_from={start} was trained with {what} {other}, but task.{name} is {own}, "
            f"whose tokens are others: {', '.join(wrong)} would be theirs; set "
            f"config.task.{name}={start / name}, or pretrain with these parameters named in "
            "config.task.fresh"
        )


def classes_of(place: str, kind: Kind, count: int) -> tuple[str, ...]:
    """Returns the names of the classes of a prepared set.

    Args:
      place: of the set.
      kind: that it must have.
      count: of classes, as the task sets it; 0: as many as the set has.

    Raises:
      UsageError: the set is missing or of another kind, or has another number of classes.
    """
    names = tuple(open_set(place, kind).meta["classes"])
    if count not in (0, len(names)):
        raise UsageError(
            f"{place} has {len(names)} classes, but task.classes={count}; set task.classes to 0 to "
            "have as many as the data"
        )
    return names


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
