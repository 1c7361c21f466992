"""The one configuration schema: every field, its default, its meaning and its bounds.

A config file builds a ``Config`` and states only what differs from these defaults.
``config_parse`` converts it to a ``ConfigDict`` for the command line and back, and checks every
value before the first array is created.
"""

import dataclasses
from typing import Any

from vlbeit_jax.config_common import ClusterConfig, MeshConfig, OptimizerConfig, RunConfig
from vlbeit_jax.config_schema import (
    AT_LEAST_0,
    OPEN_SHARE,
    POSITIVE,
    SHARE,
    one_of,
    section,
    setting,
)
from vlbeit_jax.types import Positions


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The Multiway Transformer (arXiv 2206.01127; defaults are base size)."""

    image_size: int = setting(224, "image side, pixels", POSITIVE)
    patch_size: int = setting(16, "patch side, pixels", POSITIVE)
    width: int = setting(768, "token width D", POSITIVE)
    depth: int = setting(12, "blocks", POSITIVE)
    heads: int = setting(12, "attention heads H", POSITIVE)
    ffn_width: int = setting(3072, "FFN width F", POSITIVE)
    fused_layers: int = setting(
        2, "top blocks where a pair goes through the vision-language expert", AT_LEAST_0
    )
    text_positions: int = setting(128, "longest text, word pieces", POSITIVE)
    positions: Positions = setting(Positions.ABSOLUTE, "how a token knows its place")
    layer_scale: float = setting(0.1, "initial LayerScale; 0: none", AT_LEAST_0)
    drop_path: float = setting(0.1, "stochastic depth of the last block, linear from 0", OPEN_SHARE)
    norm_eps: float = setting(1e-6, "added to the variance in every layer normalisation", POSITIVE)
    sub_norm: bool = setting(
        False, "layer normalisations inside attention and experts too, as in BEiT-3"
    )
    decoupled: bool = setting(
        False, "projections and norms of attention per modality, as in BEiT-3"
    )
    vocabulary: int = setting(64000, "word pieces, as in the text tokenizer", POSITIVE)
    pad: int = setting(
        0, "word piece that fills texts up; other than 0 in imported models alone", AT_LEAST_0
    )
    codes: int = setting(8192, "visual tokens, as in the visual tokenizer", POSITIVE)
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
    remat: str = setting(
        "none",
        "backward recomputes nothing (none), all but weight products (dots), whole blocks (full)",
        one_of("none", "dots", "full"),
        may_change=True,
    )
    scan: bool = setting(
        False,
        "one loop over blocks that route alike: smaller program, slower steps (docs/scale.md)",
        may_change=True,
    )

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """Patches N of an image."""
        return self.grid**2


# Width, depth, heads, FFN width and fused layers. Base: VL-BEiT; large: VLMo's;
# tiny and small: as ViT's.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"width": 192, "depth": 12, "heads": 3, "ffn_width": 768, "fused_layers": 2},
    "small": {"width": 384, "depth": 12, "heads": 6, "ffn_width": 1536, "fused_layers": 2},
    "base": {"width": 768, "depth": 12, "heads": 12, "ffn_width": 3072, "fused_layers": 2},
    "large": {"width": 1024, "depth": 24, "heads": 16, "ffn_width": 4096, "fused_layers": 3},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisualTokenizerConfig:
    """VQ-KD (BEiT v2, arXiv 2208.06366; defaults are its ``encoder_base_decoder_3x768x12``)."""

    image_size: int = setting(224, "image side, pixels", POSITIVE)
    patch_size: int = setting(16, "patch side, pixels", POSITIVE)
    width: int = setting(768, "token width of encoder and decoder", POSITIVE)
    heads: int = setting(12, "attention heads", POSITIVE)
    ffn_width: int = setting(3072, "FFN width", POSITIVE)
    encoder_depth: int = setting(12, "blocks of the encoder", POSITIVE)
    decoder_depth: int = setting(3, "blocks of the decoder", POSITIVE)
    drop_path: float = setting(0.0, "stochastic depth of the last block", OPEN_SHARE)
    codes: int = setting(8192, "codebook entries C", POSITIVE)
    code_width: int = setting(32, "codebook width E", POSITIVE)
    decay: float = setting(0.99, "moving average of the codebook per step", SHARE)
    commitment: float = setting(1.0, "weight beta of the commitment loss", AT_LEAST_0)
    teacher: str = setting("pixels", "what the decoder predicts", one_of("pixels", "clip", "dino"))
    teacher_weights: str = setting(
        "", "folder of an imported teacher (clip, dino)", may_change=True
    )
    kmeans_batches: int = setting(
        8, "batches that the k-means start sees", POSITIVE, may_change=True
    )
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
        "one loop over blocks that route alike: smaller program, slower steps (docs/scale.md)",
        may_change=True,
    )

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """One stream of training examples."""

    sources: tuple[str, ...] = setting(
        (), "prepared data sets (folders); sample:NAME: in the package"
    )
    weights: tuple[float, ...] = setting((), "share of each source; empty: by size")
    batch_size: int = setting(2048, "examples per step, over all hosts", POSITIVE)
    crop_scale: float = setting(0.2, "smallest area of the random crop, share of the image", SHARE)
    colour_jitter: float = setting(0.4, "brightness, contrast and saturation by 1 +- this", SHARE)
    flip: float = setting(0.5, "probability of a horizontal flip", SHARE)
    views: int = setting(
        0, "random views of an image that there are; 0: a new one every time", AT_LEAST_0
    )
    num_masked_patches: int = setting(75, "masked patches of an image, exactly", AT_LEAST_0)
    mask_block: int = setting(16, "smallest block of the block-wise mask, patches", POSITIVE)
    text_length: int = setting(128, "word pieces of a text with its specials", POSITIVE)
    masked_text: float = setting(0.15, "masked share of a text's word pieces", SHARE)
    whole_words: bool = setting(False, "mask all pieces of a word together")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the examples come from."""

    image: StreamConfig = section(StreamConfig, "images alone")
    text: StreamConfig = section(StreamConfig, "texts alone, packed into full rows")
    pair: StreamConfig = section(
        lambda: StreamConfig(crop_scale=0.5, text_length=59, masked_text=0.5),
        "images with a caption",
    )
    text_tokenizer: str = setting("", "folder made by vlbeit_jax.text_tokenizer")
    visual_tokenizer: str = setting(
        "", "workdir of a finished VQ-KD run, or folder of an imported tokenizer"
    )
    visual_tokens: str = setting(
        "", "folder made by vlbeit_jax.keep_tokens; empty: visual tokens are computed in every step"
    )
    workers: int = setting(0, "loader processes per host; 0: threads of this process", AT_LEAST_0)
    read_threads: int = setting(2, "threads per loader process", POSITIVE)
    prefetch: int = setting(4, "batches read ahead per loader process", POSITIVE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run: what is trained, on what, how and where."""

    task: str = setting("pretrain", "what is trained, see vlbeit_jax/tasks")
    run: RunConfig = section(RunConfig, "length, logs, checkpoints")
    model: ModelConfig = section(ModelConfig, "Multiway Transformer (task pretrain)")
    visual_tokenizer: VisualTokenizerConfig = section(VisualTokenizerConfig, "VQ-KD (task vqkd)")
    data: DataConfig = section(DataConfig, "examples")
    optimizer: OptimizerConfig = section(OptimizerConfig, "AdamW")
    mesh: MeshConfig = section(MeshConfig, "devices")
    cluster: ClusterConfig = section(ClusterConfig, "hosts")
