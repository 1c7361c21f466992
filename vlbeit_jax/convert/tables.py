"""Rules that several formats share: a linear map, a normalisation, an expert, a block, in the naming of the other side."""

from vlbeit_jax.config import ModelConfig
from vlbeit_jax.convert.layouts import TRANSPOSED, attention_out, fused_qkv, head_bias, image_biases
from vlbeit_jax.convert.rules import Rule, rule
from vlbeit_jax.errors import UsageError
from vlbeit_jax.ops.position import table_rows
from vlbeit_jax.types import Modality

FUSED = "vision_language"


def linear(ours: str, theirs: str) -> list[Rule]:
    """Kernel and bias of ``Linear``."""
    return [
        rule(f"{ours}/kernel", f"{theirs}.weight", TRANSPOSED),
        rule(f"{ours}/bias", f"{theirs}.bias"),
    ]


def norm(ours: str, theirs: str) -> list[Rule]:
    """Scale and bias of ``LayerNorm``."""
    return [rule(f"{ours}/scale", f"{theirs}.weight"), rule(f"{ours}/bias", f"{theirs}.bias")]


def beit_attention(ours: str, theirs: str, heads: int) -> list[Rule]:
    """First norm and attention of a block, as BEiT, VLMo and VQ-KD name them."""
    return norm(f"{ours}/attention_norm", f"{theirs}.norm1") + [
        rule(f"{ours}/attention/qkv", f"{theirs}.attn.qkv.weight", fused_qkv(heads)),
        rule(f"{ours}/attention/query_bias", f"{theirs}.attn.q_bias", head_bias(heads)),
        rule(f"{ours}/attention/value_bias", f"{theirs}.attn.v_bias", head_bias(heads)),
        rule(f"{ours}/attention/out", f"{theirs}.attn.proj.weight", attention_out(heads)),
        rule(f"{ours}/attention/out_bias", f"{theirs}.attn.proj.bias"),
    ]


def beit_expert(ours: str, theirs: str, suffix: str = "") -> list[Rule]:
    """Second norm and feed-forward network of a block, as BEiT, VLMo and VQ-KD name them."""
    rules = norm(f"{ours}/norm", f"{theirs}.norm2{suffix}") + linear(
        f"{ours}/up", f"{theirs}.mlp{suffix}.fc1"
    )
    return rules + linear(f"{ours}/down", f"{theirs}.mlp{suffix}.fc2")


def sees_images(name: str) -> bool:
    """Whether images alone go through a parameter."""
    parts = name.split("/")
    return parts[0] not in ("text_embed", "language_head") and not {
        str(Modality.LANGUAGE),
        FUSED,
    } & set(parts)


def relative_biases(config: ModelConfig, tables: tuple[str, ...]) -> Rule:
    """The image part of the joint bias table as BEiT has it: one table for all blocks, or one each."""
    rows, whole = (2 * config.grid - 1) ** 2 + 3, table_rows(config.grid, config.text_positions)
    layout = image_biases(rows, whole, config.depth, shared=len(tables) < config.depth)
    return Rule(("encoder/relative_positions",), tables, layout)


def experts_of(config: ModelConfig, block: int) -> list[str]:
    """Names of the experts that a block has."""
    fused = block >= config.depth - config.fused_layers
    return [str(modality) for modality in Modality] + ([FUSED] if fused else [])


def refuse_beit3(config: ModelConfig, target: str) -> None:
    """Raises a ``UsageError`` for what only BEiT-3 has."""
    for name in ("decoupled", "sub_norm"):
        if getattr(config, name):
            elsewhere = "--to=torch and --to=beit3 have" if config.decoupled else "--to=torch has"
            raise UsageError(
                f"--to={target}: model.{name}=True has no place there; {elsewhere} one"
            )
