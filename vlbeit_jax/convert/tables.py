"""Rules that several formats share: linear maps, norms, attention, experts, relative biases."""

from typing import NamedTuple

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert.permutations import (
    TRANSPOSED,
    attention_out,
    fused_bias,
    fused_qkv,
    head_bias,
    image_biases,
    split_qkv,
)
from vlbeit_jax.convert.rules import Rule, rule
from vlbeit_jax.errors import UsageError
from vlbeit_jax.ops.position import table_rows
from vlbeit_jax.types import Modality

FUSED = "vision_language"  # The expert of pairs.


def linear(jax: str, torch: str) -> list[Rule]:
    """Kernel and bias of ``Linear``."""
    return [
        rule(f"{jax}/kernel", f"{torch}.weight", TRANSPOSED),
        rule(f"{jax}/bias", f"{torch}.bias"),
    ]


def norm(jax: str, torch: str) -> list[Rule]:
    """Scale and bias of ``LayerNorm``."""
    return [rule(f"{jax}/scale", f"{torch}.weight"), rule(f"{jax}/bias", f"{torch}.bias")]


class AttentionNames(NamedTuple):
    """What another program calls the parts of one block's attention.

    Attributes:
      norm: the norm before attention, without ".weight".
      qkv: one fused weight, or those of query, key and value, separated by blanks.
      bias: those of query and value, or one fused with the bias of keys.
      out: the output projection, without ".weight".
    """

    norm: str
    qkv: str
    bias: str
    out: str


def attention(block: str, names: AttentionNames, heads: int) -> list[Rule]:
    """Returns the rules for norm and shared attention of our ``block``."""
    jax, bias = f"{block}/attention", names.bias.split()
    if len(bias) == 1:
        biases = [rule(f"{jax}/query_bias {jax}/value_bias", names.bias, fused_bias(heads))]
    else:
        biases = [
            rule(f"{jax}/{part}_bias", name, head_bias(heads))
            for part, name in zip(("query", "value"), bias, strict=True)
        ]
    qkv = fused_qkv(heads) if len(names.qkv.split()) == 1 else split_qkv(heads)
    return [
        *norm(f"{block}/attention_norm", names.norm),
        rule(f"{jax}/qkv", names.qkv, qkv),
        *biases,
        rule(f"{jax}/out", f"{names.out}.weight", attention_out(heads)),
        rule(f"{jax}/out_bias", f"{names.out}.bias"),
    ]


def expert(jax: str, norm_name: str, up: str, down: str) -> list[Rule]:
    """Returns the rules for norm and feed-forward network of an expert of ours."""
    return [
        *norm(f"{jax}/norm", norm_name),
        *linear(f"{jax}/up", up),
        *linear(f"{jax}/down", down),
    ]


def beit_attention(block: str, torch: str, heads: int) -> list[Rule]:
    """Returns the rules for norm and attention as BEiT, VLMo and VQ-KD name them."""
    attn = f"{torch}.attn"
    names = AttentionNames(
        norm=f"{torch}.norm1",
        qkv=f"{attn}.qkv.weight",
        bias=f"{attn}.q_bias {attn}.v_bias",
        out=f"{attn}.proj",
    )
    return attention(block, names, heads)


def beit_expert(jax: str, torch: str, suffix: str = "") -> list[Rule]:
    """Returns the rules for an expert as BEiT, VLMo and VQ-KD name it."""
    mlp = f"{torch}.mlp{suffix}"
    return expert(jax, f"{torch}.norm2{suffix}", f"{mlp}.fc1", f"{mlp}.fc2")


def layer_scale(config: ModelConfig, block: str, attention: str, expert: str) -> list[Rule]:
    """Returns the rules for LayerScale of a block; none if the model has none."""
    if not config.layer_scale:
        return []
    return [rule(f"{block}/attention_scale", attention), rule(f"{block}/expert_scale", expert)]


def sees_images(name: str) -> bool:
    """Whether a parameter is used when only images are given."""
    parts = name.split("/")
    of_text = {str(Modality.LANGUAGE), FUSED} & set(parts)
    return parts[0] not in ("text_embed", "language_head") and not of_text


def relative_biases(config: ModelConfig, tables: tuple[str, ...]) -> Rule:
    """The image part of relative biases, in BEiT's form: a table for all blocks, or one each."""
    rows, all_rows = (2 * config.grid - 1) ** 2 + 3, table_rows(config.grid, config.text_positions)
    permutation = image_biases(rows, all_rows, config.depth, shared=len(tables) < config.depth)
    return Rule(("encoder/relative_positions",), tables, permutation)


def experts_of(config: ModelConfig, block: int) -> list[str]:
    """Returns the names of a block's experts."""
    fused = block >= config.depth - config.fused_layers
    return [str(modality) for modality in Modality] + ([FUSED] if fused else [])


def refuse_beit3(config: ModelConfig, target: str, others: str = "") -> None:
    """Raises a ``UsageError`` for models with parts that only BEiT-3 has.

    Args:
      config: of the model.
      target: the format.
      others: flags of formats that hold such a model; empty: those for pretraining runs.
    """
    for name in ("decoupled", "sub_norm"):
        if getattr(config, name):
            if not others:
                others = "--to=torch or --to=beit3" if config.decoupled else "--to=torch"
            raise UsageError(
                f"--to={target} does not support model.{name}=True; export with {others}"
            )
