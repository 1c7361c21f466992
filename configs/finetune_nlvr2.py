"""Fine-tunes a base model on NLVR2, or on your own statements about two images.

Command: python -m vlbeit_jax.main --config=configs/finetune_nlvr2.py --workdir=FT \
             --config.run.start_from=RUN --config.task.statement.sources=STATEMENTS
         RUN is a pretraining run or an import. Make the data with
         python -m vlbeit_jax.prepare --kind=statements --format=nlvr2, or --format=jsonl for your
         own statements (docs/finetune.md), which need fewer steps. Network and text tokenizer are
         those of RUN; an import without one needs --config.task.text_tokenizer.
Cost:    6,740 steps of 256 statements, 4.9e17 operations with the backward pass: 0.34 hours of
         an H100 at 40% of its peak. Computed, not run by us.
Figures: recipe of BEiT-3 base (arXiv 2208.10442; published guide): 224 pixels, learning rate 7e-4
         with layer decay .65, AdamW .9/.999/1e-8, weight decay .2, drop path .2, 20 epochs with 5
         of warm-up over the 86,373 examples of train, batch 256, no clipping, random crop of half
         the area or more, no RandAugment. Its published accuracy with these settings is .836 on dev
         and .844 on the public test set. Not run by us. BEiT-3 flips images; here none is flipped.
"""

from vlbeit_jax.config.common import LoaderConfig, OptimizerConfig, RunConfig
from vlbeit_jax.config.networks import SIZES, ModelConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.visual_reasoning import VisualReasoning

EPOCH = 86_373 // 256


def get_config():
    """See the module's docstring."""
    model = ModelConfig(
        **SIZES["base"], like_start=True, image_size=224, text_positions=64, drop_path=0.2
    )
    optimizer = OptimizerConfig(
        peak_lr=7e-4,
        end_lr=1e-6,
        warmup_steps=5 * EPOCH,
        beta2=0.999,
        eps=1e-8,
        weight_decay=0.2,
        clip_norm=0.0,
        layer_decay=0.65,
    )
    run = RunConfig(steps=20 * EPOCH, evaluate_every=EPOCH, checkpoint_every=EPOCH)
    return to_config_dict(
        Config(
            task=VisualReasoning(model=model),
            run=run,
            optimizer=optimizer,
            loader=LoaderConfig(workers=8),
        )
    )
