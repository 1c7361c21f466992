"""VL-BEiT on the sample data, small enough for two CPU cores.

Command: python -m vlbeit_jax.main --config=configs/sample.py --workdir=RUN \
             --config.task.text.sources=TOKENS \
             --config.task.text_tokenizer=TEXT_TOKENIZER --config.task.visual_tokenizer=VQKD_RUN
         It is a stage of launch/sample.sh.
Cost:    4400 steps of 32 images, texts or pairs; 2.2M parameters. The README has the time on two
         CPU cores.
Expect:  each masked accuracy is several times its unigram baseline (texts: twice or more), and
         masked words of captions are predicted better with the right image than with a wrong
         one. The README has the figures.
Figures: our own, tried on the 3,182 pairs of the sample's first form (docs/sample.md). Three
         choices made the cross-modal gain appear: pairs in every second step, small batches (more
         updates), and a larger masked share than the paper's 50% and 40% on both sides. These
         captions are short lists of keywords that predict each other, and these pictures show
         their colours everywhere. Pairs have no colour jitter, because captions name the colours.
"""

from vlbeit_jax.config.common import OptimizerConfig, RunConfig
from vlbeit_jax.config.networks import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.config.streams import ImageStreamConfig, PairStreamConfig, TextStreamConfig
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.pretrain import Pretrain


def get_config():
    """See the module's docstring."""
    image = {"sources": ("sample:pairs",), "batch_size": 32, "mask_block": 4}
    task = Pretrain(
        schedule="image,pair,text,pair",
        model=ModelConfig(
            image_size=64,
            patch_size=8,
            width=128,
            heads=2,
            ffn_width=512,
            depth=4,
            fused_layers=2,
            text_positions=64,
            vocabulary=2000,
            codes=256,
            drop_path=0.0,
        ),
        image=ImageStreamConfig(**image, num_masked_patches=24, crop_scale=0.3, colour_jitter=0.2),
        text=TextStreamConfig(batch_size=32, text_length=64),
        pair=PairStreamConfig(
            **image,
            num_masked_patches=40,
            crop_scale=0.7,
            colour_jitter=0.0,
            text_length=24,
            masked_text=0.6,
        ),
        # The benchmark times this one without data; a run opens task.visual_tokenizer instead.
        tokenizer_model=VisualTokenizerConfig(
            image_size=64,
            patch_size=8,
            width=128,
            heads=4,
            ffn_width=512,
            encoder_depth=2,
            decoder_depth=2,
            codes=256,
            code_width=16,
        ),
    )
    run = RunConfig(
        steps=4400, log_every=100, evaluate_every=400, evaluate_batches=0, checkpoint_every=400
    )
    optimizer = OptimizerConfig(peak_lr=2e-3, warmup_steps=200)
    return to_config_dict(Config(task=task, run=run, optimizer=optimizer))
