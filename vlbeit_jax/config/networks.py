"""Settings of the networks: the Multiway Transformer and the visual tokenizer."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from vlbeit_jax.config.schema import AT_LEAST_0, OPEN_SHARE, POSITIVE, SHARE, one_of, setting
from vlbeit_jax.types import Positions


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchNetworkConfig:
    """What every Transformer over patches of an image has."""

    image_size: int = setting(224, "image side, pixels", POSITIVE)
    patch_size: int = setting(16, "patch side, pixels", POSITIVE)
    width: int = setting(768, "token width D", POSITIVE)
    heads: int = setting(12, "attention heads H", POSITIVE)
    ffn_width: int = setting(3072, "FFN width F", POSITIVE)
    matmul: str = setting(
        "auto",
        "matmul precision; auto: bfloat16 on accelerators",
        one_of("auto", "float32", "bfloat16"),
    )
    attention: str = setting(
        "auto",
        "computed by XLA (einsum), our TPU kernel (fused) or NVIDIA's (cudnn); auto: the device's "
        "kernel if possible",
        one_of("auto", "einsum", "fused", "cudnn"),
        may_change=True,
    )
    scan: bool = setting(
        False,
        "one loop over equal blocks: smaller program, slower steps (docs/scale.md)",
        may_change=True,
    )

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    def problems(self) -> Iterable[str]:
        """Returns what is wrong between settings; each text begins with a setting's name."""
        # A size of 0 is not known yet.
        if self.patch_size and self.image_size % self.patch_size:
            yield f"image_size={self.image_size} must be a multiple of patch_size={self.patch_size}"
        if self.width % self.heads:
            yield f"width={self.width} must be a multiple of heads={self.heads}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(PatchNetworkConfig):
    """The Multiway Transformer (arXiv 2206.01127; defaults are base size)."""

    image_size: int = setting(224, "image side, pixels; 0: as the visual tokenizer's", AT_LEAST_0)
    patch_size: int = setting(
        16, "patch side, pixels; 0: as many patches as the visual tokenizer has", AT_LEAST_0
    )
    depth: int = setting(12, "blocks", POSITIVE)
    fused_layers: int = setting(2, "top blocks with a vision-language expert for pairs", AT_LEAST_0)
    text_positions: int = setting(128, "longest text, word pieces", POSITIVE)
    positions: Positions = setting(Positions.ABSOLUTE, "scheme of positions")
    layer_scale: float = setting(0.1, "initial LayerScale; 0: none", AT_LEAST_0)
    drop_path: float = setting(0.1, "stochastic depth of the last block, linear from 0", OPEN_SHARE)
    norm_eps: float = setting(1e-6, "added to the variance in every layer normalisation", POSITIVE)
    sub_norm: bool = setting(
        False, "layer normalisations inside attention and experts too, as in BEiT-3"
    )
    decoupled: bool = setting(
        False, "projections and norms of attention per modality, as in BEiT-3"
    )
    vocabulary: int = setting(64000, "word pieces; 0: as in the text tokenizer", AT_LEAST_0)
    pad: int = setting(0, "id of the padding piece; not 0 only in imported models", AT_LEAST_0)
    codes: int = setting(8192, "visual tokens; 0: as in the visual tokenizer", AT_LEAST_0)
    like_start: bool = setting(
        False,
        "take the network of run.start_from: all of it but image_size, drop_path and how it is "
        "computed; and its tokenizers, if task.text_tokenizer and task.visual_tokenizer are empty",
        may_change=True,
    )
    remat: str = setting(
        "none",
        "what the backward pass recomputes: nothing, all but weight products, or whole blocks",
        one_of("none", "dots", "full"),
        may_change=True,
    )

    @property
    def patches(self) -> int:
        """Patches N of an image."""
        return self.grid**2

    def problems(self) -> Iterable[str]:
        """Returns what is wrong between settings; each text begins with a setting's name."""
        yield from super().problems()
        if self.fused_layers > self.depth:
            yield f"fused_layers={self.fused_layers} must be at most depth={self.depth}"
        if self.decoupled and self.fused_layers:
            yield (
                f"fused_layers={self.fused_layers} must be 0 with decoupled: BEiT-3 has no "
                "vision-language expert"
            )


# What two runs may set differently and still exchange their weights.
NOT_OF_THE_NETWORK = (
    "image_size",
    "drop_path",
    "matmul",
    "attention",
    "scan",
    "remat",
    "like_start",
)


# Width, depth, heads, FFN width and fused layers. Base: VL-BEiT; large: VLMo's;
# tiny and small: as ViT's.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"width": 192, "depth": 12, "heads": 3, "ffn_width": 768, "fused_layers": 2},
    "small": {"width": 384, "depth": 12, "heads": 6, "ffn_width": 1536, "fused_layers": 2},
    "base": {"width": 768, "depth": 12, "heads": 12, "ffn_width": 3072, "fused_layers": 2},
    "large": {"width": 1024, "depth": 24, "heads": 16, "ffn_width": 4096, "fused_layers": 3},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisualTokenizerConfig(PatchNetworkConfig):
    """VQ-KD (BEiT v2, arXiv 2208.06366; defaults are its ``encoder_base_decoder_3x768x12``)."""

    encoder_depth: int = setting(12, "blocks of the encoder", POSITIVE)
    decoder_depth: int = setting(3, "blocks of the decoder", POSITIVE)
    drop_path: float = setting(0.0, "stochastic depth of the last block", OPEN_SHARE)
    codes: int = setting(8192, "codebook entries C", POSITIVE)
    code_width: int = setting(32, "codebook width E", POSITIVE)
    decay: float = setting(0.99, "moving average of the codebook per step", SHARE)
    commitment: float = setting(1.0, "weight beta of the commitment loss", AT_LEAST_0)
    teacher: str = setting(
        "pixels", "what the decoder predicts", one_of("pixels", "clip", "dino", "run")
    )
    teacher_weights: str = setting(
        "",
        "folder of the teacher: imported (clip, dino), or a run or imported model (run)",
        may_change=True,
    )
    teacher_width: int = setting(
        0,
        "width of the teacher's features; run: of its network; 0: 512 of a clip, 768 of a dino",
        AT_LEAST_0,
    )
    teacher_blocks: int = setting(1, "run: top blocks whose states are averaged", POSITIVE)
    kmeans_batches: int = setting(8, "batches for the k-means start", POSITIVE, may_change=True)
    kmeans_iterations: int = setting(
        10, "Lloyd iterations of the k-means start", AT_LEAST_0, may_change=True
    )
    reseed_below: float = setting(
        0.0,
        "re-seed codes whose mean use falls below this share of 1/C; 0: never",
        OPEN_SHARE,
        may_change=True,
    )
    collapse_below: float = setting(
        0.1,
        "warn CodebookCollapse when fewer than this share of codes is in use",
        SHARE,
        may_change=True,
    )
