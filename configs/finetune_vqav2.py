"""Fine-tunes a base model on VQA v2, or on your own questions about images.

Command: python -m vlbeit_jax.main --config=configs/finetune_vqav2.py --workdir=FT \
             --config.run.start_from=RUN --config.task.question.sources=QUESTIONS
         RUN is a pretraining run or an import. Make the data with
         python -m vlbeit_jax.prepare --kind=questions --format=vqav2-trainval
         (docs/published_benchmarks.md). For your own questions, --format=jsonl (docs/finetune.md),
         set --config.task.answers_least=1, and fewer steps. Network and text tokenizer are those of
         RUN; an import without one needs --config.task.text_tokenizer.
Cost:    51,020 steps of 128 questions, 3.9e18 operations with the backward pass: 2.7 hours of an
         H100 at 40% of its peak. Computed, not run by us.
Figures: recipe of BEiT-3 base (arXiv 2208.10442; published guide): 480 pixels, learning rate 3e-5
         and 20 times that for the head but not for the pooler, no layer decay, AdamW .9/.98/1e-8,
         weight decay .01, drop path .1, 10 epochs with 1 of warm-up over the 653,000 questions of
         train and validation, batch 128, no clipping, random crop of half the area or more,
         RandAugment (2, 7), a list of the 3,129 answers of at least 9 questions. Not run by us.
         BEiT-3 flips images whatever the question says; here none is flipped whose question or
         answers name a side.
"""

from vlbeit_jax.config.common import LoaderConfig, OptimizerConfig, RunConfig
from vlbeit_jax.config.networks import SIZES, ModelConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.vqa import VQATask

EPOCH = 653_106 // 128


def get_config():
    """See the module's docstring."""
    model = ModelConfig(
        **SIZES["base"],
        like_start=True,
        image_size=480,
        text_positions=64,
        drop_path=0.1,
    )
    optimizer = OptimizerConfig(
        peak_lr=3e-5,
        end_lr=1e-6,
        warmup_steps=EPOCH,
        beta2=0.98,
        eps=1e-8,
        weight_decay=0.01,
        clip_norm=0.0,
        head_factor=20.0,
    )
    run = RunConfig(steps=10 * EPOCH, evaluate_every=EPOCH, checkpoint_every=EPOCH)
    return to_config_dict(
        Config(
            task=VQATask(model=model), run=run, optimizer=optimizer, loader=LoaderConfig(workers=8)
        )
    )
