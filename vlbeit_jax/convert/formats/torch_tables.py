"""Tables of the names in ``standalone/vlbeit_torch.py``."""

from collections.abc import Sequence

from vlbeit_jax.config.networks import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.convert.permutations import (
    CONVOLUTION,
    patches,
    vocabulary_columns,
    vocabulary_rows,
)
from vlbeit_jax.convert.rules import Rule, Table, rule
from vlbeit_jax.convert.source import CODEBOOK
from vlbeit_jax.convert.tables import (
    AttentionNames,
    attention,
    expert,
    experts_of,
    layer_scale,
    linear,
    norm,
)
from vlbeit_jax.models.dalle import CONVOLUTIONS, DalleConfig
from vlbeit_jax.models.vocabulary import padded_vocabulary
from vlbeit_jax.types import Modality, Positions


def model_table(config: ModelConfig) -> Table:
    """Returns a rule for every parameter of the model; nothing is left out."""
    size, padded = config.vocabulary, padded_vocabulary(config.vocabulary)
    is_absolute = config.positions is Positions.ABSOLUTE
    rules = _vision_embed("vision_embed", config.patch_size, is_absolute)
    rules += [
        rule("vision_embed/mask_token", "vision_embed.mask_token"),
        rule("vision_embed/type", "vision_embed.modality"),
        rule("text_embed/words", "text_embed.words.weight", vocabulary_rows(size, padded)),
        rule("text_embed/type", "text_embed.modality"),
    ]
    if is_absolute:
        rules.append(rule("text_embed/positions", "text_embed.positions"))
    else:
        rules += norm("text_embed/norm", "text_embed.norm")
        rules.append(rule("encoder/relative_positions", "relative_positions"))
    for block in range(config.depth):
        jax, torch = f"encoder/block_{block}", f"encoder.blocks.{block}"
        if config.decoupled:
            rules += _decoupled_attention(config, jax, torch)
        else:
            rules += _attention(jax, torch, config.heads, config.sub_norm)
        rules += _experts(jax, torch, experts_of(config, block), config.sub_norm)
        rules += layer_scale(config, jax, f"{torch}.attention_scale", f"{torch}.expert_scale")
    if config.decoupled:
        for modality in Modality:
            rules += norm(f"encoder/{modality}_norm", f"encoder.norm.{modality}")
    else:
        rules += norm("encoder/norm", "encoder.norm")
    rules += linear("vision_head", "vision_head")
    rules += [
        rule("language_head/kernel", "language_head.weight", vocabulary_columns(size, padded)),
        rule("language_head/bias", "language_head.bias", vocabulary_rows(size, padded)),
    ]
    return Table(rules)


def vqkd_table(config: VisualTokenizerConfig) -> Table:
    """Returns a rule for every parameter of VQ-KD, and for its codebook."""
    rules = [rule(CODEBOOK, "codebook")]
    for part, side, depth in (
        ("encoder", config.patch_size, config.encoder_depth),
        ("decoder", 1, config.decoder_depth),
    ):
        rules += _vision_embed(f"{part}_embed", side, True) + norm(f"{part}/norm", f"{part}.norm")
        for block in range(depth):
            jax, torch = f"{part}/block_{block}", f"{part}.blocks.{block}"
            rules += _attention(jax, torch, config.heads, sub_norm=False)
            rules += _experts(jax, torch, [Modality.VISION], sub_norm=False)
    for name in ("to_code", "to_target"):
        rules += linear(f"{name}/inner", f"{name}.0") + linear(f"{name}/outer", f"{name}.2")
    return Table(rules)


def dalle_table(config: DalleConfig) -> Table:
    """Returns a rule for every parameter of DALL-E's encoder."""
    rules = _convolution("input", "input") + _convolution("output", "output")
    for group in range(config.groups):
        for block in range(config.blocks):
            jax, torch = f"group_{group + 1}_block_{block + 1}", f"groups.{group}.{block}"
            for number in range(CONVOLUTIONS):
                rules += _convolution(f"{jax}/conv_{number + 1}", f"{torch}.convolutions.{number}")
            if group and not block:
                rules += _convolution(f"{jax}/identity", f"{torch}.identity")
    return Table(rules)


def _vision_embed(name: str, side: int, is_absolute: bool) -> list[Rule]:
    rules = [
        rule(f"{name}/patch/kernel", f"{name}.patch.weight", patches(side)),
        rule(f"{name}/patch/bias", f"{name}.patch.bias"),
        rule(f"{name}/cls", f"{name}.cls"),
    ]
    if is_absolute:
        rules.append(rule(f"{name}/positions", f"{name}.positions"))
    return rules


def _attention(jax: str, torch: str, heads: int, sub_norm: bool) -> list[Rule]:
    attn = f"{torch}.attention"
    names = AttentionNames(
        norm=f"{torch}.attention_norm",
        qkv=f"{attn}.qkv.weight",
        bias=f"{attn}.query_bias {attn}.value_bias",
        out=f"{attn}.out",
    )
    rules = attention(jax, names, heads)
    if sub_norm:
        rules += norm(f"{jax}/attention/inner_norm", f"{attn}.inner_norm")
    return rules


def _decoupled_attention(config: ModelConfig, jax: str, torch: str) -> list[Rule]:
    rules, attn = [], f"{torch}.attention"
    for modality in Modality:
        own = f"{jax}/attention/{modality}"
        rules += norm(f"{own}_norm", f"{torch}.attention_norm.{modality}")
        for part in ("query", "key", "value", "out"):
            rules += linear(f"{own}_{part}", f"{attn}.{part}.{modality}")
        if config.sub_norm:
            rules += norm(f"{own}_inner_norm", f"{attn}.inner_norm.{modality}")
    return rules


def _experts(jax: str, torch: str, experts: Sequence[str], sub_norm: bool) -> list[Rule]:
    rules = []
    for name in experts:
        own = f"{torch}.experts.{name}"
        rules += expert(f"{jax}/{name}", f"{own}.norm", f"{own}.up", f"{own}.down")
        if sub_norm:
            rules += norm(f"{jax}/{name}/inner_norm", f"{own}.inner_norm")
    return rules


def _convolution(jax: str, torch: str) -> list[Rule]:
    return [
        rule(f"{jax}/kernel", f"{torch}.weight", CONVOLUTION),
        rule(f"{jax}/bias", f"{torch}.bias"),
    ]
