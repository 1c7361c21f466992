"""Where every parameter of a model and of its visual tokenizer lies in ``standalone/vlbeit_torch.py``."""

from collections.abc import Sequence

from vlbeit_jax.config import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.convert.layouts import (
    CONVOLUTION,
    attention_out,
    fused_qkv,
    head_bias,
    patches,
    vocabulary_columns,
    vocabulary_rows,
)
from vlbeit_jax.convert.rules import Rule, Table, rule
from vlbeit_jax.convert.source import CODEBOOK
from vlbeit_jax.convert.tables import experts_of, linear, norm
from vlbeit_jax.models.dalle import CONVOLUTIONS, DalleConfig
from vlbeit_jax.models.vocabulary import padded_vocabulary
from vlbeit_jax.types import Modality, Positions


def model_table(config: ModelConfig) -> Table:
    """Every parameter of the model; nothing is left out."""
    size, padded = config.vocabulary, padded_vocabulary(config.vocabulary)
    absolute = config.positions is Positions.ABSOLUTE
    rules = _vision_embed("vision_embed", config.patch_size, absolute)
    rules += [
        rule("vision_embed/mask_token", "vision_embed.mask_token"),
        rule("vision_embed/type", "vision_embed.modality"),
    ]
    rules += [
        rule("text_embed/words", "text_embed.words.weight", vocabulary_rows(size, padded)),
        rule("text_embed/type", "text_embed.modality"),
    ]
    rules += (
        [rule("text_embed/positions", "text_embed.positions")]
        if absolute
        else norm("text_embed/norm", "text_embed.norm")
    )
    rules += [] if absolute else [rule("encoder/relative_positions", "relative_positions")]
    for block in range(config.depth):
        ours, theirs = f"encoder/block_{block}", f"encoder.blocks.{block}"
        rules += (
            _decoupled_attention(config, ours, theirs)
            if config.decoupled
            else _attention(ours, theirs, config.heads, config.sub_norm)
        )
        rules += _experts(ours, theirs, experts_of(config, block), config.sub_norm)
        rules += [
            rule(f"{ours}/{name}_scale", f"{theirs}.{name}_scale")
            for name in ("attention", "expert")
            if config.layer_scale
        ]
    for modality in Modality if config.decoupled else ():
        rules += norm(f"encoder/{modality}_norm", f"encoder.norm.{modality}")
    rules += [] if config.decoupled else norm("encoder/norm", "encoder.norm")
    rules += linear("vision_head", "vision_head") + [
        rule("language_head/kernel", "language_head.weight", vocabulary_columns(size, padded)),
        rule("language_head/bias", "language_head.bias", vocabulary_rows(size, padded)),
    ]
    return Table(rules)


def vqkd_table(config: VisualTokenizerConfig) -> Table:
    """Every parameter of VQ-KD, and its codebook."""
    rules = [rule(CODEBOOK, "codebook")]
    for part, side, depth in (
        ("encoder", config.patch_size, config.encoder_depth),
        ("decoder", 1, config.decoder_depth),
    ):
        rules += _vision_embed(f"{part}_embed", side, True) + norm(f"{part}/norm", f"{part}.norm")
        for block in range(depth):
            ours, theirs = f"{part}/block_{block}", f"{part}.blocks.{block}"
            rules += _attention(ours, theirs, config.heads, False) + _experts(
                ours, theirs, [Modality.VISION], False
            )
    for name in ("to_code", "to_target"):
        rules += linear(f"{name}/inner", f"{name}.0") + linear(f"{name}/outer", f"{name}.2")
    return Table(rules)


def dalle_table(config: DalleConfig) -> Table:
    """Every parameter of DALL-E's encoder."""
    rules = _convolution("input", "input") + _convolution("output", "output")
    for group in range(config.groups):
        for block in range(config.blocks):
            ours, theirs = f"group_{group + 1}_block_{block + 1}", f"groups.{group}.{block}"
            for number in range(CONVOLUTIONS):
                rules += _convolution(
                    f"{ours}/conv_{number + 1}", f"{theirs}.convolutions.{number}"
                )
            if group and not block:
                rules += _convolution(f"{ours}/identity", f"{theirs}.identity")
    return Table(rules)


def _vision_embed(name: str, side: int, absolute: bool) -> list[Rule]:
    rules = [
        rule(f"{name}/patch/kernel", f"{name}.patch.weight", patches(side)),
        rule(f"{name}/patch/bias", f"{name}.patch.bias"),
    ]
    return rules + [
        rule(f"{name}/{part}", f"{name}.{part}") for part in ("cls", "positions")[: 1 + absolute]
    ]


def _attention(ours: str, theirs: str, heads: int, sub_norm: bool) -> list[Rule]:
    rules = norm(f"{ours}/attention_norm", f"{theirs}.attention_norm") + [
        rule(f"{ours}/attention/qkv", f"{theirs}.attention.qkv.weight", fused_qkv(heads)),
        rule(f"{ours}/attention/query_bias", f"{theirs}.attention.query_bias", head_bias(heads)),
        rule(f"{ours}/attention/value_bias", f"{theirs}.attention.value_bias", head_bias(heads)),
        rule(f"{ours}/attention/out", f"{theirs}.attention.out.weight", attention_out(heads)),
        rule(f"{ours}/attention/out_bias", f"{theirs}.attention.out.bias"),
    ]
    return rules + (
        norm(f"{ours}/attention/inner_norm", f"{theirs}.attention.inner_norm") if sub_norm else []
    )


def _decoupled_attention(config: ModelConfig, ours: str, theirs: str) -> list[Rule]:
    rules = []
    for modality in Modality:
        rules += norm(f"{ours}/attention/{modality}_norm", f"{theirs}.attention_norm.{modality}")
        for part in ("query", "key", "value", "out"):
            rules += linear(
                f"{ours}/attention/{modality}_{part}", f"{theirs}.attention.{part}.{modality}"
            )
        if config.sub_norm:
            rules += norm(
                f"{ours}/attention/{modality}_inner_norm",
                f"{theirs}.attention.inner_norm.{modality}",
            )
    return rules


def _experts(ours: str, theirs: str, experts: Sequence[str], sub_norm: bool) -> list[Rule]:
    rules = []
    for expert in experts:
        place = f"{theirs}.experts.{expert}"
        rules += norm(f"{ours}/{expert}/norm", f"{place}.norm")
        rules += linear(f"{ours}/{expert}/up", f"{place}.up") + linear(
            f"{ours}/{expert}/down", f"{place}.down"
        )
        rules += norm(f"{ours}/{expert}/inner_norm", f"{place}.inner_norm") if sub_norm else []
    return rules


def _convolution(ours: str, theirs: str) -> list[Rule]:
    return [
        rule(f"{ours}/kernel", f"{theirs}.weight", CONVOLUTION),
        rule(f"{ours}/bias", f"{theirs}.bias"),
    ]
