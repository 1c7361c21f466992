"""Your own pictures: a visual tokenizer and VL-BEiT in three sizes, from ten pictures on.

Command: python -m vlbeit_jax.main --config=configs/own.py:vqkd-nano --workdir=TOKENIZER \
             --config.task.image.sources=PAIRS
         python -m vlbeit_jax.main --config=configs/own.py:nano --workdir=RUN \
             --config.task.image.sources=PAIRS --config.task.text.sources=PAIRS \
             --config.task.pair.sources=PAIRS --config.task.text_tokenizer=TEXT_TOKENIZER \
             --config.task.visual_tokenizer=TOKENIZER
         The sizes are nano, tiny and small. docs/own.md has all commands, also for pictures
         without captions.
Cost:    docs/own.md has a table. Steps follow from the number of pictures: 10 passes for the
         tokenizer and 20 for VL-BEiT, of the stream that takes longest, and some hundred or
         thousand steps at least.
Figures: our own for nano, which has the networks of the sample (docs/sample.md); the schedule is
         the sample's too. Width, depth and heads of tiny and small are ViT's. Their batches,
         learning rates and codes lie between the sample's and the papers' (BEiT v2, VL-BEiT); we
         ran four steps of tiny, and none of small. Masks are VL-BEiT's: 40% of patches, 15% of a
         text, 50% of a caption.
"""

from typing import Any

from vlbeit_jax.config.common import OptimizerConfig, RunConfig
from vlbeit_jax.config.networks import SIZES, ModelConfig, VisualTokenizerConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.config.streams import (
    ImageStreamConfig,
    PairStreamConfig,
    TextStreamConfig,
    ViewStreamConfig,
)
from vlbeit_jax.config.variants import choose
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.tasks.vqkd import VQKD

NANO = {"width": 128, "depth": 4, "heads": 2, "ffn_width": 512, "fused_layers": 2}
NETWORKS = {"nano": NANO, "tiny": SIZES["tiny"], "small": SIZES["small"]}
# Image and patch side, blocks of encoder and decoder, codes and their width.
TOKENIZERS = {
    "nano": (64, 8, 2, 2, 256, 16),
    "tiny": (128, 16, 6, 2, 1024, 32),
    "small": (224, 16, 12, 3, 4096, 32),
}
# Batch and fewest steps of both models, and their learning rates.
TRAINING = {
    "nano": (32, 300, 600, 1e-3, 2e-3),
    "tiny": (64, 1000, 4000, 5e-4, 1e-3),
    "small": (128, 2000, 8000, 3e-4, 1e-3),
}
# Which periods and which warm-up suit a run depends on its length: they follow from it.
PERIODS: dict[str, Any] = {
    "steps": 0,
    "log_every": -1,
    "evaluate_every": -1,
    "checkpoint_every": -1,
}


def get_config(variant: str = "tiny"):
    """See the module's docstring."""
    names = [*NETWORKS, *(f"vqkd-{size}" for size in NETWORKS)]
    variant = choose("own", variant, names)
    return to_config_dict((_vqkd if "-" in variant else _pretrain)(variant.removeprefix("vqkd-")))


def _vqkd(size: str) -> Config:
    batch, steps, _, rate, _ = TRAINING[size]
    image = ViewStreamConfig(batch_size=batch, crop_scale=0.3, colour_jitter=0.0)
    return Config(
        task=VQKD(model=_tokenizer(size), image=image),
        run=RunConfig(epochs=10, min_steps=steps, **PERIODS),
        optimizer=OptimizerConfig(
            peak_lr=rate, warmup_steps=-1, beta2=0.99, eps=1e-8, weight_decay=1e-4
        ),
    )


def _tokenizer(size: str) -> VisualTokenizerConfig:
    side, patch, encoder, decoder, codes, code_width = TOKENIZERS[size]
    network = {name: NETWORKS[size][name] for name in ("width", "heads", "ffn_width")}
    return VisualTokenizerConfig(
        image_size=side,
        patch_size=patch,
        **network,
        encoder_depth=encoder,
        decoder_depth=decoder,
        codes=codes,
        code_width=code_width,
        kmeans_batches=16,
        reseed_below=0.3,
    )


def _pretrain(size: str) -> Config:
    batch, _, steps, _, rate = TRAINING[size]
    image: dict[str, Any] = {"batch_size": batch, "num_masked_patches": -1, "mask_block": 0}
    task = Pretrain(
        schedule="image,pair,text,pair",
        model=ModelConfig(
            **NETWORKS[size], image_size=0, patch_size=0, vocabulary=0, codes=0, drop_path=0.0
        ),
        image=ImageStreamConfig(**image, crop_scale=0.3, colour_jitter=0.2),
        text=TextStreamConfig(batch_size=batch, text_length=0),
        # Captions name colours and what stands at the edges.
        pair=PairStreamConfig(
            **image, text_length=0, crop_scale=0.7, colour_jitter=0.0, masked_text=0.5
        ),
        tokenizer_model=_tokenizer(size),  # For compile and benchmark.
    )
    return Config(
        task=task,
        run=RunConfig(epochs=20, min_steps=steps, **PERIODS),
        optimizer=OptimizerConfig(peak_lr=rate, warmup_steps=-1),
    )
