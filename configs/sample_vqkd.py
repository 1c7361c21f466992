"""A visual tokenizer for the sample data."""

from vlbeit_jax.config import Config, DataConfig, OptimizerConfig, RunConfig, StreamConfig, VisualTokenizerConfig
from vlbeit_jax.config_parse import to_config_dict

IMAGE = StreamConfig(sources=("sample:pairs",), batch_size=64, crop_scale=0.3, colour_jitter=0.0, masked_patches=0)


def get_config():
    """See the module's docstring."""
    config = Config(
        task="vqkd",
        run=RunConfig(steps=600, schedule="image", log_every=50, evaluate_every=200, evaluate_batches=0, checkpoint_every=200),
        visual_tokenizer=VisualTokenizerConfig(
            image_size=64, patch_size=8, width=128, heads=4, ffn_width=512, encoder_depth=3, decoder_depth=2,
            codes=512, code_width=16, kmeans_batches=16,
        ),
        data=DataConfig(image=IMAGE),
        optimizer=OptimizerConfig(peak_lr=1e-3, warmup_steps=50, beta2=0.99, eps=1e-8, weight_decay=1e-4, clip_norm=3.0),
    )  # fmt: skip
    return to_config_dict(config)
