"""Fine-tunes a base model on ADE20K's 150 classes, or on your own masks.

Command: python -m vlbeit_jax.main --config=configs/finetune_ade20k.py --workdir=FT \
             --config.run.start_from=RUN --config.task.image.sources=ADE20K
         RUN is a pretraining run or an import. Make the data with
         python -m vlbeit_jax.prepare --kind=masks --format=ade20k (docs/published_benchmarks.md).
         For your own masks, --format=jsonl (docs/finetune.md), set --config.task.classes=0, and
         fewer steps. The network is that of RUN, whatever its sizes; base size without RUN.
Cost:    160,000 steps of 16 images of 512 x 512, 9.4e18 operations with the backward pass: 6.6
         hours of an H100 at 40% of its peak. Four fifths of it are the head, which
         task.head_width=256 makes small. Computed, not run by us.
Figures: recipe of BEiT v2 base for a start without labels (published guide): UPerNet on blocks 3,
         5, 7 and 11, auxiliary head with weight .4, learning rate 5e-5 with layer decay .75, weight
         decay .05, drop path .15, batch 16, 160,000 steps with 1,500 of warm-up, then linearly to
         0. BEiT v2 reports 53.1 mIoU; runs of others end .3 to .8 below. Not run by us. BEiT
         normalises the head over the batch (--config.task.norm=batch), pixels by ImageNet's mean
         and deviation, and its loss counts ignored pixels too.
"""

from vlbeit_jax.config.common import LoaderConfig, OptimizerConfig, RunConfig
from vlbeit_jax.config.networks import SIZES, ModelConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.segmentation import Segmentation


def get_config():
    """See the module's docstring."""
    model = ModelConfig(
        **SIZES["base"], like_start=True, image_size=512, drop_path=0.15, remat="dots"
    )
    optimizer = OptimizerConfig(
        peak_lr=5e-5,
        end_lr=0.0,
        lr_decay="linear",
        warmup_steps=1500,
        beta2=0.999,
        eps=1e-8,
        weight_decay=0.05,
        clip_norm=0.0,
        layer_decay=0.75,
    )
    run = RunConfig(steps=160_000, evaluate_every=16_000, checkpoint_every=8_000)
    return to_config_dict(
        Config(
            task=Segmentation(model=model, classes=150),
            run=run,
            optimizer=optimizer,
            loader=LoaderConfig(workers=8),
        )
    )
