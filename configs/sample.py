"""VL-BEiT on the sample data, small enough for two CPU cores.

Command: python -m vlbeit_jax.main --config=configs/sample.py --workdir=RUN \
             --config.data.text.sources="('TOKENS',)" \
             --config.data.text_tokenizer=TEXT_TOKENIZER --config.data.visual_tokenizer=VQKD_RUN
         It is a stage of launch/sample.sh.
Cost:    4400 steps of 32 images, texts or pairs; 2.2M parameters. The README has the time on two
         CPU cores.
Expect:  each masked accuracy is several times its unigram baseline (texts: twice or more), and
         masked words of captions are predicted better with the right image than with a wrong
         one. The README has the figures.
Figures: our own, tried on 3,182 pairs (docs/sample.md). Three choices made the cross-modal gain
         appear: pairs in every second step, small batches (more updates), and a larger masked
         share than the paper's 50% and 40% on both sides. These captions are short lists of
         keywords that predict each other, and these pictures show their colours everywhere.
         Pairs have no colour jitter, because captions name the colours.
"""

from vlbeit_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    StreamConfig,
    VisualTokenizerConfig,
)
from vlbeit_jax.config_parse import to_config_dict


def get_config():
    """See the module's docstring."""
    image = {"sources": ("sample:pairs",), "batch_size": 32, "mask_block": 4}
    config = Config(
        run=RunConfig(
            steps=4400,
            schedule="image,pair,text,pair",
            log_every=100,
            evaluate_every=400,
            evaluate_batches=0,
            checkpoint_every=400,
        ),
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
        # The benchmark times this one without data; a run opens data.visual_tokenizer instead.
        visual_tokenizer=VisualTokenizerConfig(
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
        data=DataConfig(
            image=StreamConfig(**image, num_masked_patches=24, crop_scale=0.3, colour_jitter=0.2),
            text=StreamConfig(batch_size=32, text_length=64),
            pair=StreamConfig(
                **image,
                num_masked_patches=40,
                crop_scale=0.7,
                colour_jitter=0.0,
                text_length=24,
                masked_text=0.6,
            ),
        ),
        optimizer=OptimizerConfig(peak_lr=2e-3, warmup_steps=200),
    )
    return to_config_dict(config)
