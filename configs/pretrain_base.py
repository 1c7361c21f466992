"""VL-BEiT base: 12 blocks of width 768, vision-language experts in the top 2.

It has 256.7M parameters with embeddings and heads.

Command: python -m vlbeit_jax.main --config=configs/pretrain_base.py --workdir=RUN \
             --config.task.text_tokenizer=TEXT_TOKENIZER --config.task.visual_tokenizer=VQKD_RUN
         --config=configs/pretrain_base.py:tiny (or :small) trains a smaller model by the same
         recipe. The sets below are those that the commands of docs/pretraining_data.md write;
         --config.task.image.sources=IMAGES and the like name others.
Cost:    480k steps of 2048 images, 2048 texts and 2048 pairs. 256 TPU v5e chips at 100% of their
         peak would take 13.4 ms a step, so at least 1.8 hours; the TPU compiler estimates 31.5
         to 43.6 ms a step, or 4.2 to 5.8 hours (docs/scale.md). Not run by us.
Figures: the data are the paper's, but PG-19 takes the place of BookCorpus, which is gone. Each set
         gives rows in proportion to its records. The rest are the defaults of vlbeit_jax/config and
         tasks/pretrain.py. Batch, steps, learning rate, warm-up, AdamW .9/.98/1e-6, weight decay
         .05, masks 15% / 50% / 40% and drop path .1 are as recalled from the paper (arXiv
         2206.01127) and agree with BEiT-3's. End learning rate, clipping 3.0 and colour jitter .4
         are from BEiT-3 (arXiv 2208.10442), LayerScale .1 from BEiT.
"""

from vlbeit_jax.config.common import LoaderConfig
from vlbeit_jax.config.networks import SIZES, ModelConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.config.streams import ImageStreamConfig, PairStreamConfig, TextStreamConfig
from vlbeit_jax.config.variants import choose
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.pretrain import Pretrain

PAIRS = ("data/cc3m", "data/sbu", "data/coco", "data/visual_genome")


def get_config(size: str = "base"):
    """See the module's docstring."""
    task = Pretrain(
        model=ModelConfig(**SIZES[choose("pretrain_base", size, list(SIZES))]),
        image=ImageStreamConfig(sources=("data/imagenet22k",)),
        text=TextStreamConfig(sources=("data/wikipedia_books",)),
        pair=PairStreamConfig(sources=PAIRS, crop_scale=0.5, text_length=59, masked_text=0.5),
    )
    return to_config_dict(Config(task=task, loader=LoaderConfig(workers=8)))
