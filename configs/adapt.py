"""Continues pretraining on data of one's own, from another run or from imported weights.

Command: python -m vlbeit_jax.main --config=configs/adapt.py --workdir=RUN2 \
             --config.run.start_from=RUN --config.task.schedule=image,pair \
             --config.task.image.sources=data/images --config.task.pair.sources=data/pairs
         Network, image size, masks, and the tokenizers if RUN has some, are those of RUN; lengths
         of texts follow from the data. docs/adapt.md says what each kind of import needs besides,
         and how to train a part of the network.
Cost:    10,000 steps of 256 images, texts or pairs: a 1,152nd of the rows of
         configs/pretrain_base.py. Not run by us at this size; docs/adapt.md
         measures the sample.
Figures: a rate of 5e-4 is between the linear (2.5e-4) and the square-root rule (7.1e-4) for an
         eighth of pretraining's batch and its rate of 2e-3. Warm-up again and decay again are as
         in arXiv 2308.04014. These are rules of thumb: try a third and three times of the rate.
"""

from typing import Any

from vlbeit_jax.config.common import LoaderConfig, OptimizerConfig, RunConfig
from vlbeit_jax.config.networks import SIZES, ModelConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.config.streams import ImageStreamConfig, PairStreamConfig, TextStreamConfig
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.pretrain import Pretrain

ROWS = 256


def get_config():
    """See the module's docstring."""
    image: dict[str, Any] = {"batch_size": ROWS, "num_masked_patches": -1, "mask_block": 0}
    follows = {"image_size": 0, "vocabulary": 0, "codes": 0, "like_start": True}
    model: dict[str, Any] = SIZES["base"] | follows
    task = Pretrain(
        schedule="image,text,pair",
        model=ModelConfig(**model),
        image=ImageStreamConfig(**image),
        text=TextStreamConfig(batch_size=ROWS, text_length=0),
        pair=PairStreamConfig(**image, crop_scale=0.5, text_length=0, masked_text=0.5),
    )
    run = RunConfig(steps=10_000, evaluate_every=1000, checkpoint_every=1000)
    optimizer = OptimizerConfig(peak_lr=5e-4, warmup_steps=500)
    return to_config_dict(
        Config(task=task, run=run, optimizer=optimizer, loader=LoaderConfig(workers=8))
    )
