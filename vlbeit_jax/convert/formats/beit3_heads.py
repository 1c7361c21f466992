"""Tables of BEiT-3's networks after fine-tuning: the trunk, and the heads of one task.

The names are those of ``BEiT3ForVisualQuestionAnswering``, ``BEiT3ForVisualReasoning``,
``BEiT3ForRetrieval``, ``BEiT3ForCaptioning`` and ``BEiT3ForImageClassification`` in BEiT-3's
published code. Of the heads of pretraining, they have that of word pieces at most.
"""

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert.formats.beit3_tables import table
from vlbeit_jax.convert.permutations import TRANSPOSED, zero
from vlbeit_jax.convert.rules import Rule, Table, rule
from vlbeit_jax.convert.tables import linear, norm
from vlbeit_jax.types import Modality

PRETRAINING_HEADS = ("vision_head/", "language_head/")
TEXT_PARTS = ("text_embed/", "/language/", "/language_")
FINAL_NORMS = tuple(f"encoder/{modality}_norm/" for modality in Modality)


def vqa_table(config: ModelConfig) -> Table:
    """Question answering: no final norm, a pooler, and two layers to the answers."""
    heads = [
        *norm("pooler/norm", "pooler.norm"),
        *linear("pooler/dense", "pooler.dense"),
        *linear("head/hidden", "head.0"),
        *norm("head/norm", "head.1"),
        *linear("head/answers", "head.3"),
    ]
    return Table(_trunk(config, without=PRETRAINING_HEADS + FINAL_NORMS) + heads)


def reasoning_table(config: ModelConfig) -> Table:
    """Visual reasoning: a head on four states. BEiT-3 has no type for the second image."""
    heads = [
        rule("vision_embed/second_type", "", zero(config.width)),
        *norm("head/first_norm", "head.norm1"),
        *linear("head/hidden", "head.dense1"),
        *norm("head/norm", "head.norm2"),
        *linear("head/truth", "head.dense2"),
    ]
    return Table(_trunk(config, without=PRETRAINING_HEADS) + heads)


def retrieval_table(config: ModelConfig) -> Table:
    """Retrieval by two encoders: projections without bias, and the scale of the logits."""
    heads = [
        rule("head/image/kernel", "vision_head.weight", TRANSPOSED),
        rule("head/text/kernel", "language_head.weight", TRANSPOSED),
        rule("head/logit_scale", "logit_scale"),
    ]
    return Table(_trunk(config, without=PRETRAINING_HEADS) + heads)


def captioning_table(config: ModelConfig) -> Table:
    """Captioning: the whole network of pretraining, but for the head of visual tokens."""
    return Table(_trunk(config, without=("vision_head/",)))


def classification_table(config: ModelConfig) -> Table:
    """Classification of images: no final norm. The file also holds the experts of texts."""
    trunk = _trunk(config, without=PRETRAINING_HEADS + FINAL_NORMS)
    of_texts = [each for each in trunk if any(part in each.jax[0] for part in TEXT_PARTS)]
    heads = [*norm("head/norm", "fc_norm"), *linear("head/out", "head")]
    ignored = {name: "it is of texts" for each in of_texts for name in each.torch}
    return Table([each for each in trunk if each not in of_texts] + heads, ignored=ignored)


def _trunk(config: ModelConfig, without: tuple[str, ...]) -> list[Rule]:
    return [each for each in table(config).rules if not each.jax[0].startswith(without)]
