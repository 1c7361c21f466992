"""The table of VLMo's names, as its published checkpoints have them."""

from collections.abc import Iterable

import numpy as np

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert.permutations import (
    TOKEN,
    layer_columns,
    patches,
    stacked,
    vocabulary_rows,
)
from vlbeit_jax.convert.rules import Table, rule
from vlbeit_jax.convert.tables import beit_attention, beit_expert, experts_of, layer_scale, norm
from vlbeit_jax.models.vocabulary import padded_vocabulary

EXPERTS = {"vision": "imag", "language": "text", "vision_language": "vl"}
NO_PLACE = "VLMo does not predict masked patches, and has another head for text"
WORDS = "text_embeddings.word_embeddings.weight"
INNER_TYPES = "text_embeddings.token_type_embeddings.weight"
PLACES = "text_embeddings.position_embeddings.weight"
PLACE_IDS = "text_embeddings.position_ids"
TYPES = "token_type_embeddings.weight"
SECOND_IMAGE = f"{TYPES}[2]"  # What reports call the third row of that table.
BIASES = "relative_position_bias_table"
PATCH = "transformer.patch_embed.proj"
OTHER_HEADS = (
    "pooler.",
    "mlm_score.",
    "itm_score.",
    "itc_",
    "vqa_classifier.",
    "nlvr2_classifier.",
    "logit_",
)
INDICES = (
    "relative_position_index",
    "text_relative_position_index",
    "text_imag_relative_position_index",
)


def table(config: ModelConfig, tensors: Iterable[str]) -> Table:
    """Returns the rules for all but the mask token and the heads.

    Args:
      config: of the model.
      tensors: names in the file that is read; empty for an export.
    """
    vocabulary = vocabulary_rows(config.vocabulary, padded_vocabulary(config.vocabulary))
    rules = [
        rule("text_embed/type vision_embed/type", TYPES, stacked(2)),
        rule("text_embed/words", WORDS, vocabulary),
        *norm("text_embed/norm", "text_embeddings.LayerNorm"),
        rule("vision_embed/cls", "transformer.cls_token", TOKEN),
        rule("vision_embed/patch/kernel", f"{PATCH}.weight", patches(config.patch_size)),
        rule("vision_embed/patch/bias", f"{PATCH}.bias"),
        rule("encoder/relative_positions", BIASES, layer_columns(config.depth, config.heads)),
        *norm("encoder/norm", "transformer.norm"),
    ]
    for block in range(config.depth):
        jax, torch = f"encoder/block_{block}", f"transformer.blocks.{block}"
        rules += beit_attention(jax, torch, config.heads)
        rules += layer_scale(config, jax, f"{torch}.gamma_1", f"{torch}.gamma_2")
        for expert in experts_of(config, block):
            rules += beit_expert(f"{jax}/{expert}", torch, f"_{EXPERTS[expert]}")
    heads = [
        f"{head}_head/{part}" for head in ("vision", "language") for part in ("kernel", "bias")
    ]
    # BERT's embeddings have types of their own, which VLMo keeps. Those of an export add nothing.
    constant = {INNER_TYPES: np.zeros((2, config.width), np.float32)}
    ignored = dict.fromkeys(
        (name for name in tensors if name.startswith(OTHER_HEADS)), "a head that we do not have"
    )
    ignored |= dict.fromkeys(INDICES, "computed, not learned")
    # They are as long as VLMo's max_text_len, which no other tensor depends on: an export with
    # them would not fit a model with another one.
    ignored |= dict.fromkeys((PLACES, PLACE_IDS), "BERT's positions, which VLMo has switched off")
    ignored[INNER_TYPES] = "row 0 is added to the word embeddings, row 1 is unused"
    ignored[SECOND_IMAGE] = "the type of NLVR2's second picture"
    return Table(
        rules, dict.fromkeys(["vision_embed/mask_token", *heads], NO_PLACE), constant, ignored
    )
