"""Fine-tunes a base model on ImageNet-1K, or on your own labelled images.

Command: python -m vlbeit_jax.main --config=configs/finetune_imagenet.py --workdir=FT \
             --config.run.start_from=RUN --config.task.image.sources=IMAGENET
         RUN is a pretraining run or an import. Make the data with
         python -m vlbeit_jax.prepare --kind=labelled_images --format=imagenet
         (docs/published_benchmarks.md). For your own images, --format=jsonl (docs/finetune.md), set
         --config.task.classes=0, and fewer steps. The network is that of RUN, whatever its sizes;
         base size without RUN.
Cost:    62,550 steps of 1024 images, 6.7e18 operations with the backward pass: 4.7 hours of an
         H100 at 40% of its peak. Computed, not run by us.
Figures: recipe of BEiT-3 base (arXiv 2208.10442; published guide): learning rate 7e-4 with layer
         decay .65, weight decay .05, drop path .15, 50 epochs with 5 of warm-up, batch 1024, mixup
         .8, cutmix 1.0, label smoothing .1, RandAugment rand-m9-mstd0.5-inc1, random erasing .25.
         Not run by us. BEiT-3 normalises by ImageNet's mean and deviation, this program to [-1, 1].
"""

from vlbeit_jax.config.common import LoaderConfig, OptimizerConfig, RunConfig
from vlbeit_jax.config.networks import SIZES, ModelConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.image_classification import ImageClassification

EPOCH = 1_281_167 // 1024


def get_config():
    """See the module's docstring."""
    task = ImageClassification(
        model=ModelConfig(**SIZES["base"], like_start=True, drop_path=0.15), classes=1000
    )
    optimizer = OptimizerConfig(
        peak_lr=7e-4,
        end_lr=1e-6,
        warmup_steps=5 * EPOCH,
        beta2=0.999,
        eps=1e-8,
        weight_decay=0.05,
        clip_norm=0.0,
        layer_decay=0.65,
    )
    run = RunConfig(steps=50 * EPOCH, evaluate_every=EPOCH, checkpoint_every=EPOCH)
    return to_config_dict(
        Config(task=task, run=run, optimizer=optimizer, loader=LoaderConfig(workers=8))
    )
