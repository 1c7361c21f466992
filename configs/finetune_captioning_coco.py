"""Fine-tunes a base model to write captions on COCO, or on your own images with captions.

Command: python -m vlbeit_jax.main --config=configs/finetune_captioning_coco.py --workdir=FT \
             --config.run.start_from=RUN --config.task.pair.sources=PAIRS
         RUN is a pretraining run or an import, with its head of word pieces. Network and text
         tokenizer are those of RUN; an import without one needs --config.task.text_tokenizer. Make
         the data with python -m vlbeit_jax.prepare --kind=pairs --format=karpathy
         (docs/published_benchmarks.md). For your own images, --format=jsonl (docs/finetune.md), set
         fewer steps, and --config.task.drop_worst_after.
Cost:    22,130 steps of 256 captions, 3.8e18 operations with the backward pass, 13% of them to
         find the worst positions: 2.7 hours of an H100 at 40% of its peak. Computed, not run by us.
Figures: recipe of BEiT-3 base (arXiv 2208.10442; published guide): 480 pixels, 32 word pieces of
         which 70% are masked, learning rate 4e-5, no layer decay, AdamW .9/.999/1e-8, weight decay
         .05, drop path .1, 10 epochs with 1 of warm-up over 566,747 captions, batch 256, no
         clipping, label smoothing .1 over all other pieces, the worst 20% of positions left out
         after 12,000 steps, random crop of half the area or more, RandAugment (2, 7); captions by 3
         beams with length penalty .6. Not run by us. BEiT-3 leaves out the worst positions of each
         device, here they are those of the whole batch. It flips images whatever the caption says;
         here none is flipped whose caption names a side.
"""

from vlbeit_jax.config.common import LoaderConfig, OptimizerConfig, RunConfig
from vlbeit_jax.config.networks import SIZES, ModelConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.captioning import Captioning

EPOCH = 566_747 // 256


def get_config():
    """See the module's docstring."""
    # A GPU's kernel does not take the attention mask, so XLA writes the logits of 901 image tokens
    # and 32 word pieces. They are computed again in the backward pass instead of being kept. A
    # TPU's kernel takes the mask: set --config.task.model.remat=none there.
    model = ModelConfig(
        **SIZES["base"],
        like_start=True,
        image_size=480,
        text_positions=64,
        drop_path=0.1,
        remat="dots",
    )
    optimizer = OptimizerConfig(
        peak_lr=4e-5,
        end_lr=1e-6,
        warmup_steps=EPOCH,
        beta2=0.999,
        eps=1e-8,
        weight_decay=0.05,
        clip_norm=0.0,
    )
    run = RunConfig(steps=10 * EPOCH, evaluate_every=EPOCH, checkpoint_every=EPOCH)
    return to_config_dict(
        Config(
            task=Captioning(model=model, drop_worst=0.2, drop_worst_after=12_000),
            run=run,
            optimizer=optimizer,
            loader=LoaderConfig(workers=8),
        )
    )
