"""VQ-KD at base size, the visual tokenizer of BEiT v2.

The encoder has 12 blocks and the decoder 3, of width 768 with 12 heads; the codebook has 8192 codes
of width 32.

Command: python -m vlbeit_jax.main --config=configs/vqkd_base.py --workdir=RUN \
             --config.task.image.sources=IMAGES
         Make IMAGES with python -m vlbeit_jax.prepare --kind=images (BEiT v2 used ImageNet-1K).
Cost:    250k steps of 512 images of 224 x 224; 108.8M trainable parameters (with a teacher of
         width 512). Not run by us.
Figures: BEiT v2's published recipe (arXiv 2208.06366 and its code): 100 epochs of ImageNet-1K,
         batch 512, learning rate 2e-4, 10 epochs of warm-up, AdamW .9/.99, weight decay 1e-4,
         crops from 8% of the area, no colour jitter, no clipping, no re-seeding. Ours: the
         teacher is 'pixels'. BEiT v2's teachers, CLIP and DINO, are imported by
         python -m vlbeit_jax.convert and chosen by config.task.model.teacher.
"""

from vlbeit_jax.config.common import LoaderConfig, OptimizerConfig, RunConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.config.streams import ViewStreamConfig
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.vqkd import VQKD


def get_config():
    """See the module's docstring."""
    config = Config(
        task=VQKD(image=ViewStreamConfig(batch_size=512, crop_scale=0.08, colour_jitter=0.0)),
        run=RunConfig(steps=250_000),
        loader=LoaderConfig(workers=8),
        optimizer=OptimizerConfig(
            peak_lr=2e-4,
            warmup_steps=25_000,
            beta2=0.99,
            eps=1e-8,
            weight_decay=1e-4,
            clip_norm=0.0,
        ),
    )
    return to_config_dict(config)
