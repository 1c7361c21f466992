"""What question answering and retrieval share: one stream of images with texts."""

from collections.abc import Iterable

from vlbeit_jax.config.finetune import PairedStreamConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.types import Special


def paired_problems(
    name: str, stream: PairedStreamConfig, model: ModelConfig, text_tokenizer: str
) -> Iterable[str]:
    """Returns what keeps a task from training on a stream of images with texts."""
    yield from stream.training_problems(name)
    if model.pad != Special.PAD:
        yield f"model.pad={model.pad} must be {int(Special.PAD)}, because data are padded with it"
    if not 3 <= stream.text_length <= model.text_positions:
        yield (
            f"{name}.text_length={stream.text_length} must be in [3, "
            f"model.text_positions={model.text_positions}]"
        )
    if not text_tokenizer:
        yield (
            "text_tokenizer is empty: give the folder 'text_tokenizer' of the run that "
            "run.start_from names, or one made by vlbeit_jax.text_tokenizer"
        )
