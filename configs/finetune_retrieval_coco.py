"""Fine-tunes a base model for retrieval on COCO, or on your own images with captions.

Command: python -m vlbeit_jax.main --config=configs/finetune_retrieval_coco.py --workdir=FT \
             --config.run.start_from=RUN --config.task.pair.sources=PAIRS
         RUN is a pretraining run or an import. Network and text tokenizer are those of RUN; an
         import without one needs --config.task.text_tokenizer. Make the data with
         python -m vlbeit_jax.prepare --kind=pairs --format=karpathy (docs/published_benchmarks.md),
         or --format=jsonl for your own (docs/finetune.md).
         --config.task.matching=True adds a matching loss, and re-ranking to the evaluation. The
         loss is over all rows of a step whatever --config.run.accumulate is.
Cost:    2,760 steps of 3072 pairs, 3.1e18 operations: 2.2 hours of an H100 at 40% of its peak;
         with matching 4.4 times that. Microbatches add a forward pass. Computed, not run by us.
Figures: recipe of BEiT-3 base (arXiv 2208.10442; published guide): 384 pixels, learning rate 2e-4
         with layer decay .65, weight decay .05, drop path .2, 15 epochs with 3 of warm-up over
         566,747 captions, batch 3072, random crop of half the area or more, no RandAugment, scale
         without bound. Not run by us. BEiT-3 starts from weights that were already trained by a
         contrastive loss. Its epoch shows each caption once; here a step draws one caption of each
         of its images.
"""

from vlbeit_jax.config.common import LoaderConfig, OptimizerConfig, RunConfig
from vlbeit_jax.config.networks import SIZES, ModelConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.retrieval import Retrieval

EPOCH = 566_747 // 3072


def get_config():
    """See the module's docstring."""
    model = ModelConfig(
        **SIZES["base"],
        like_start=True,
        image_size=384,
        text_positions=64,
        drop_path=0.2,
    )
    optimizer = OptimizerConfig(
        peak_lr=2e-4,
        end_lr=1e-6,
        warmup_steps=3 * EPOCH,
        beta2=0.999,
        eps=1e-8,
        weight_decay=0.05,
        clip_norm=0.0,
        layer_decay=0.65,
    )
    run = RunConfig(steps=15 * EPOCH, evaluate_every=EPOCH, checkpoint_every=EPOCH)
    return to_config_dict(
        Config(
            task=Retrieval(model=model, max_scale=0.0),
            run=run,
            optimizer=optimizer,
            loader=LoaderConfig(workers=8),
        )
    )
