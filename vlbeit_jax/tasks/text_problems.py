"""Checks whether a task can train on its texts and with its model's padding piece."""

from collections.abc import Iterable

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.types import Special

FROM_START = "the folder 'text_tokenizer' of the run that run.start_from names"
NEW = "one made by vlbeit_jax.text_tokenizer"


def padding_problems(model: ModelConfig) -> Iterable[str]:
    """Returns what is wrong with the id of the padding piece; an imported model brings its own."""
    if model.pad != Special.PAD:
        yield f"model.pad={model.pad} must be {int(Special.PAD)}, because data are padded with it"


def text_problems(
    name: str, length: int, model: ModelConfig, text_tokenizer: str, *, has_start: bool = True
) -> Iterable[str]:
    """Returns what is wrong with a stream's texts.

    Args:
      name: name of the stream.
      length: the stream's ``text_length``.
      model: the model that reads the texts.
      text_tokenizer: folder of the text tokenizer; empty if none is named.
      has_start: whether the task usually starts from a run, which has a text tokenizer.
    """
    # A length of 0 is not known yet; then the tokenizer or the sources are missing.
    if length and not 3 <= length <= model.text_positions:
        yield (
            f"{name}.text_length={length} must be in [3, model.text_positions="
            f"{model.text_positions}]"
        )
    if not text_tokenizer:
        wanted = f"{FROM_START}, if it has one, or {NEW}" if has_start else NEW
        yield f"text_tokenizer is empty: give {wanted}"
