"""VL-BEiT on the sample data."""

from vlbeit_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, RunConfig, StreamConfig
from vlbeit_jax.config_parse import to_config_dict


def get_config():
    """See the module's docstring."""
    image = {"masked_patches": 24, "mask_block": 4, "colour_jitter": 0.2}
    config = Config(
        run=RunConfig(steps=3000, schedule="image,text,pair", log_every=150, evaluate_every=600, evaluate_batches=0, checkpoint_every=600),
        model=ModelConfig(
            image_size=64, patch_size=8, width=192, heads=3, ffn_width=768, depth=6, fused_layers=2, text_positions=64,
            vocabulary=2000, codes=256, drop_path=0.0,
        ),
        data=DataConfig(
            image=StreamConfig(sources=("sample:pairs",), batch_size=64, crop_scale=0.3, **image),
            text=StreamConfig(batch_size=64, text_length=64),
            pair=StreamConfig(sources=("sample:pairs",), batch_size=64, text_length=24, crop_scale=0.7, masked_text=0.5, **image),
        ),
        optimizer=OptimizerConfig(peak_lr=2e-3, warmup_steps=200, weight_decay=0.05),
    )  # fmt: skip
    return to_config_dict(config)
