"""Fine-tunes a base model for retrieval on Flickr30k.

Command: python -m vlbeit_jax.main --config=configs/finetune_retrieval_flickr30k.py --workdir=FT \
             --config.run.start_from=RUN --config.task.pair.sources=PAIRS
         RUN is a pretraining run, an import, or a run of finetune_retrieval_coco.py, whose
         projections --config.task.keep_head=True keeps. A figure from such a start is not one of
         Flickr30k alone. Make the data with
         python -m vlbeit_jax.prepare --kind=pairs --format=karpathy (docs/published_benchmarks.md).
Cost:    940 steps of 3072 pairs, 1.1e18 operations: 0.7 hours of an H100 at 40% of its peak.
         Computed, not run by us.
Figures: recipe of BEiT-3 base (arXiv 2208.10442; published guide): as for COCO, but learning rate
         1e-4 and 20 epochs with 5 of warm-up, over 145,000 captions. Not run by us. BEiT-3 starts
         from weights that were already trained by a contrastive loss.
"""

from vlbeit_jax.config.common import LoaderConfig, OptimizerConfig, RunConfig
from vlbeit_jax.config.networks import SIZES, ModelConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.retrieval import Retrieval

EPOCH = 145_000 // 3072


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
        peak_lr=1e-4,
        end_lr=1e-6,
        warmup_steps=5 * EPOCH,
        beta2=0.999,
        eps=1e-8,
        weight_decay=0.05,
        clip_norm=0.0,
        layer_decay=0.65,
    )
    run = RunConfig(steps=20 * EPOCH, evaluate_every=EPOCH, checkpoint_every=EPOCH)
    return to_config_dict(
        Config(
            task=Retrieval(model=model, max_scale=0.0),
            run=run,
            optimizer=optimizer,
            loader=LoaderConfig(workers=8),
        )
    )
