"""Where parameters lie under BEiT-3's names: everything twice, A for vision and B for language.

Of a model with shared attention, the same array stands in A and B.
"""

import numpy as np

from vlbeit_jax.config import ModelConfig
from vlbeit_jax.convert.layouts import (
    TOKEN,
    Layout,
    attention_out,
    head_bias,
    patches,
    split_qkv,
    vocabulary_columns,
    vocabulary_rows,
    zero,
)
from vlbeit_jax.convert.rules import Rule, Table, rule
from vlbeit_jax.convert.tables import FUSED, linear, norm
from vlbeit_jax.models.vocabulary import padded_vocabulary
from vlbeit_jax.types import Modality

SIDES = {Modality.VISION: "A", Modality.LANGUAGE: "B"}
UNUSED_ROWS = 2  # Positions start at the third row of each table, as in fairseq.
PARTS = ("query", "key", "value")
EMBED, ENCODER = "beit3.vision_embed", "beit3.encoder"


def table(config: ModelConfig, fusion: bool = False) -> Table:
    """All of a model: the unimodal paths, or pairs' with the vision-language expert in the top blocks."""
    return _decoupled(config) if config.decoupled else _shared(config, fusion)


def _ends(config: ModelConfig) -> list[Rule]:
    """Embeddings and heads, which both kinds have alike."""
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


_POSITIONS = Layout(
    lambda x: (np.concatenate([np.zeros((UNUSED_ROWS, x.shape[1]), x.dtype), x]),),
    lambda x: (x[UNUSED_ROWS:],),
)


def _decoupled(config: ModelConfig) -> Table:
    rules = _ends(config) + [
        rule(f"{embed}/type", "", zero(config.width)) for embed in ("vision_embed", "text_embed")
    ]
    for modality, side in SIDES.items():
        for block in range(config.depth):
            ours, theirs = f"encoder/block_{block}", f"{ENCODER}.layers.{block}"
            rules += norm(
                f"{ours}/attention/{modality}_norm", f"{theirs}.self_attn_layer_norm.{side}"
            )
            for part, letter in zip((*PARTS, "out"), "qkvo", strict=True):
                name = "out_proj" if part == "out" else f"{letter}_proj"
                rules += linear(
                    f"{ours}/attention/{modality}_{part}", f"{theirs}.self_attn.{name}.{side}"
                )
            if config.sub_norm:
                rules += norm(
                    f"{ours}/attention/{modality}_inner_norm",
                    f"{theirs}.self_attn.inner_attn_ln.{side}",
                )
                rules += norm(f"{ours}/{modality}/inner_norm", f"{theirs}.ffn.{side}.ffn_layernorm")
            rules += _expert(f"{ours}/{modality}", theirs, side)
        rules += norm(f"encoder/{modality}_norm", f"{ENCODER}.layer_norm.{side}")
    return Table(rules)


def _expert(ours: str, theirs: str, side: str) -> list[Rule]:
    rules = norm(f"{ours}/norm", f"{theirs}.final_layer_norm.{side}")
    return (
        rules
        + linear(f"{ours}/up", f"{theirs}.ffn.{side}.fc1")
        + linear(f"{ours}/down", f"{theirs}.ffn.{side}.fc2")
    )


def _twice(each: Rule) -> Rule:
    """The same array of ours in A and in B; the names on the other side have {side} where they differ."""
    names = tuple(name.format(side=side) for side in SIDES.values() for name in each.theirs)
    there, back = each.layout
    return Rule(
        each.ours,
        names,
        Layout(lambda x: there(x) * 2, lambda *both: back(*both[: len(both) // 2])),
    )


def _shared(config: ModelConfig, fusion: bool) -> Table:
    rules, both, constant = (
        _ends(config),
        norm("encoder/norm", f"{ENCODER}.layer_norm.{{side}}"),
        {},
    )
    for block in range(config.depth):
        ours, theirs = f"encoder/block_{block}", f"{ENCODER}.layers.{block}"
        attention = f"{theirs}.self_attn"
        weights = " ".join(f"{attention}.{letter}_proj.{{side}}.weight" for letter in "qkv")
        both += norm(f"{ours}/attention_norm", f"{theirs}.self_attn_layer_norm.{{side}}") + [
            rule(f"{ours}/attention/qkv", weights, split_qkv(config.heads)),
            rule(
                f"{ours}/attention/query_bias",
                f"{attention}.q_proj.{{side}}.bias",
                head_bias(config.heads),
            ),
            rule(
                f"{ours}/attention/value_bias",
                f"{attention}.v_proj.{{side}}.bias",
                head_bias(config.heads),
            ),
            rule(
                f"{ours}/attention/out",
                f"{attention}.out_proj.{{side}}.weight",
                attention_out(config.heads),
            ),
            rule(f"{ours}/attention/out_bias", f"{attention}.out_proj.{{side}}.bias"),
        ]
        constant |= {
            f"{attention}.k_proj.{side}.bias": np.zeros(config.width, np.float32)
            for side in SIDES.values()
        }
        if fusion and block >= config.depth - config.fused_layers:
            both += _expert(f"{ours}/{FUSED}", theirs, "{side}")
        else:
            rules += [
                each
                for modality, side in SIDES.items()
                for each in _expert(f"{ours}/{modality}", theirs, side)
            ]
    return Table(rules + [_twice(each) for each in both], {}, constant)
