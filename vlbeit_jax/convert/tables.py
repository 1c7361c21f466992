"""Rules that several formats share: a linear map, a normalisation, an expert, a block, in the naming of the other side."""

from vlbeit_jax.config import ModelConfig
from vlbeit_jax.convert.layouts import TRANSPOSED
from vlbeit_jax.convert.rules import Rule, rule
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Modality

FUSED = "vision_language"


def linear(ours: str, theirs: str) -> list[Rule]:
    """Kernel and bias of ``Linear``."""
    return [rule(f"{ours}/kernel", f"{theirs}.weight", TRANSPOSED), rule(f"{ours}/bias", f"{theirs}.bias")]


def norm(ours: str, theirs: str) -> list[Rule]:
    """Scale and bias of ``LayerNorm``."""
    return [rule(f"{ours}/scale", f"{theirs}.weight"), rule(f"{ours}/bias", f"{theirs}.bias")]


def experts_of(config: ModelConfig, block: int) -> list[str]:
    """Names of the experts that a block has."""
    fused = block >= config.depth - config.fused_layers
    return [str(modality) for modality in Modality] + ([FUSED] if fused else [])


def refuse_beit3(config: ModelConfig, target: str) -> None:
    """Raises a ``UsageError`` for what only BEiT-3 has."""
    for name in ("decoupled", "sub_norm"):
        if getattr(config, name):
            raise UsageError(f"--to={target}: model.{name}=True has no place there; --to=beit3 has one")
