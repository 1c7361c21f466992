"""Rules by which a fine-tuned network starts from any run with the same backbone."""

from collections.abc import Sequence

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.training.adapters import ResizeRelative, first_rows, resize_positions
from vlbeit_jax.training.warm_start import Adapter, WarmStart
from vlbeit_jax.types import Modality, Positions

# What a start may have and a fine-tuned network may not need. Blocks are not among them: a model
# with fewer blocks than the start is a mistake.
UNNEEDED = (
    "vision_head/*",
    "language_head/*",
    "head/*",
    "pooler/*",
    "vision_embed/*",
    "text_embed/*",
    "encoder/norm/*",
    "encoder/vision_norm/*",
    "encoder/language_norm/*",
    "encoder/block_*/vision/*",
    "encoder/block_*/language/*",
    "encoder/block_*/vision_language/*",
    # Of decoupled attention (BEiT-3).
    "encoder/block_*/attention/vision_*",
    "encoder/block_*/attention/language_*",
)


def backbone_start(
    model: ModelConfig,
    modalities: Sequence[Modality],
    fresh: tuple[str, ...],
    copies: tuple[tuple[str, str], ...] = (),
) -> WarmStart:
    """Returns the rules: positions are adapted, new heads are fresh, what is not needed is dropped.

    Args:
      model: of the network.
      modalities: of its inputs.
      fresh: globs of the parameters that no start has.
      copies: as in ``WarmStart``.
    """
    adapt = adapted_positions(model, modalities)
    return WarmStart(fresh=fresh, adapt=adapt, unneeded=UNNEEDED, copies=copies)


def adapted_positions(
    model: ModelConfig, modalities: Sequence[Modality]
) -> tuple[tuple[str, Adapter], ...]:
    """Returns adapters of a start's tables of positions to the images and texts of a network.

    Args:
      model: of the network.
      modalities: of its inputs.
    """
    adapt: list[tuple[str, Adapter]] = []
    if model.positions is Positions.RELATIVE:
        # The table does not tell how long its texts are, so they must be as long as here.
        texts = model.text_positions
        adapt.append(("encoder/relative_positions", ResizeRelative(texts, texts)))
    else:
        if Modality.VISION in modalities:
            adapt.append(("vision_embed/positions", resize_positions))
        if Modality.LANGUAGE in modalities:
            adapt.append(("text_embed/positions", first_rows))
    return tuple(adapt)
