"""VL-BEiT on the sample data, with twice the width of configs/sample.py and more steps.

Command: python -m vlbeit_jax.main --config=configs/sample_long.py --workdir=RUN \
             --config.task.text.sources=TOKENS \
             --config.task.text_tokenizer=TEXT_TOKENIZER --config.task.visual_tokenizer=VQKD_RUN
         launch/sample.sh makes the three inputs; docs/sample_transfer.md has the whole command.
Cost:    6000 steps of 32 images, texts or pairs; 7.5M parameters. 88 minutes on one CPU core.
Expect:  higher masked accuracies of patches and captions than with configs/sample.py, not of texts,
         and features of pictures that are no better (docs/sample_transfer.md).
Figures: our own. All is as in configs/sample.py but the width, the steps, the probes, how often it
         evaluates and saves, and a lower rate with a longer warm-up for the wider network. At half
         the sample's steps, more width gained more over its random start than more pixels did, for
         pictures with all labels.
"""

from vlbeit_jax.config.common import OptimizerConfig, RunConfig
from vlbeit_jax.config.networks import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.config.probes import ProbeConfig
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
            width=256,
            heads=4,
            ffn_width=1024,
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
        # As in configs/sample.py.
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
        probes=ProbeConfig(every=1000, images="sample:emoji", strength=1.0),
    )
    run = RunConfig(
        steps=6000, log_every=100, evaluate_every=1000, evaluate_batches=0, checkpoint_every=500
    )
    optimizer = OptimizerConfig(peak_lr=1.5e-3, warmup_steps=300)
    return to_config_dict(Config(task=task, run=run, optimizer=optimizer))
