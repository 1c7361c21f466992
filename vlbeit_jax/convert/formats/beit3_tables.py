"""Tables of BEiT-3's names, in which everything exists twice: A for vision and B for language.

A model with shared attention is written with the same array in A and B.
"""

import numpy as np

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert.permutations import (
    TOKEN,
    Permutation,
    one_to_one,
    patches,
    vocabulary_columns,
    vocabulary_rows,
    zero,
)
from vlbeit_jax.convert.rules import Rule, Table, rule
from vlbeit_jax.convert.tables import FUSED, AttentionNames, attention, expert, linear, norm
from vlbeit_jax.models.vocabulary import padded_vocabulary
from vlbeit_jax.types import Modality

SIDES = {Modality.VISION: "A", Modality.LANGUAGE: "B"}
UNUSED_ROWS = 2  # Positions start at the third row of each table, as in fairseq.
EMBED, ENCODER = "beit3.vision_embed", "beit3.encoder"
PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}


def table(config: ModelConfig, fusion: bool = False) -> Table:
    """Returns the rules for all of a model.

    Args:
      config: of the model.
      fusion: for shared attention: whether the top blocks have the expert of pairs, instead of
        those of images and texts.
    """
    return _decoupled(config) if config.decoupled else _shared(config, fusion)


def _ends(config: ModelConfig) -> list[Rule]:
    """Embeddings and heads, which both forms have in common."""
    size, padded = config.vocabulary, padded_vocabulary(config.vocabulary)
    return [
        rule("text_embed/words", "beit3.text_embed.weight", vocabulary_rows(size, padded)),
        rule("vision_embed/mask_token", f"{EMBED}.mask_token", TOKEN),
        rule("vision_embed/cls", f"{EMBED}.cls_token", TOKEN),
        rule("vision_embed/patch/kernel", f"{EMBED}.proj.weight", patches(config.patch_size)),
        rule("vision_embed/patch/bias", f"{EMBED}.proj.bias"),
        rule("vision_embed/positions", f"{ENCODER}.embed_positions.A.weight", _POSITIONS),
        rule("text_embed/positions", f"{ENCODER}.embed_positions.B.weight", _POSITIONS),
        *linear("vision_head", "mim_head"),
        rule("language_head/kernel", "mlm_head.weight", vocabulary_columns(size, padded)),
        rule("language_head/bias", "mlm_head.bias", vocabulary_rows(size, padded)),
    ]


_POSITIONS = one_to_one(
    lambda x: np.concatenate([np.zeros((UNUSED_ROWS, x.shape[1]), x.dtype), x]),
    lambda x: x[UNUSED_ROWS:],
)


def _decoupled(config: ModelConfig) -> Table:
    rules = _ends(config)
    rules += [rule(f"{part}_embed/type", "", zero(config.width)) for part in ("vision", "text")]
    for modality, side in SIDES.items():
        for block in range(config.depth):
            jax, torch = f"encoder/block_{block}", f"{ENCODER}.layers.{block}"
            own, attn = f"{jax}/attention/{modality}", f"{torch}.self_attn"
            rules += norm(f"{own}_norm", f"{torch}.self_attn_layer_norm.{side}")
            for part, name in PROJECTIONS.items():
                rules += linear(f"{own}_{part}", f"{attn}.{name}.{side}")
            if config.sub_norm:
                rules += norm(f"{own}_inner_norm", f"{attn}.inner_attn_ln.{side}")
                rules += norm(f"{jax}/{modality}/inner_norm", f"{torch}.ffn.{side}.ffn_layernorm")
            rules += _expert(f"{jax}/{modality}", torch, side)
        rules += norm(f"encoder/{modality}_norm", f"{ENCODER}.layer_norm.{side}")
    return Table(rules)


def _expert(jax: str, torch: str, side: str) -> list[Rule]:
    ffn = f"{torch}.ffn.{side}"
    return expert(jax, f"{torch}.final_layer_norm.{side}", f"{ffn}.fc1", f"{ffn}.fc2")


def _twice(each: Rule) -> Rule:
    """The same array in A and in B; {side} in the other program's names stands for the letter."""
    names = tuple(name.format(side=side) for side in SIDES.values() for name in each.torch)
    export, load = each.permutation
    both = Permutation(
        lambda *arrays: export(*arrays) * 2,
        lambda *tensors: load(*tensors[: len(tensors) // 2]),
    )
    return Rule(each.jax, names, both)


def _shared(config: ModelConfig, fusion: bool) -> Table:
    rules, constant = _ends(config), {}
    both = norm("encoder/norm", f"{ENCODER}.layer_norm.{{side}}")
    for block in range(config.depth):
        jax, torch = f"encoder/block_{block}", f"{ENCODER}.layers.{block}"
        attn = f"{torch}.self_attn"
        names = AttentionNames(
            norm=f"{torch}.self_attn_layer_norm.{{side}}",
            qkv=" ".join(f"{attn}.{letter}_proj.{{side}}.weight" for letter in "qkv"),
            bias=f"{attn}.q_proj.{{side}}.bias {attn}.v_proj.{{side}}.bias",
            out=f"{attn}.out_proj.{{side}}",
        )
        both += attention(jax, names, config.heads)
        for side in SIDES.values():
            constant[f"{attn}.k_proj.{side}.bias"] = np.zeros(config.width, np.float32)
        if fusion and block >= config.depth - config.fused_layers:
            both += _expert(f"{jax}/{FUSED}", torch, "{side}")
        else:
            for modality, side in SIDES.items():
                rules += _expert(f"{jax}/{modality}", torch, side)
    return Table(rules + [_twice(each) for each in both], {}, constant)
