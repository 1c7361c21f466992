"""A visual tokenizer for the sample data: VQ-KD with the teacher 'pixels'.

Each image has 64 tokens out of 256 codes.

Command: python -m vlbeit_jax.main --config=configs/sample_vqkd.py --workdir=RUN
         It is a stage of launch/sample.sh.
Cost:    500 steps of 64 images of 64 x 64; 0.9M parameters. The README has the time on two CPU
         cores.
Expect:  254 or 255 of 256 codes in use on held-out images.
Figures: our own, for this data. 39% of the patches are white. Without re-seeding, the codebook
         collapsed to 141 of 512 codes within 600 steps; BEiT v2, trained on photographs, needs
         no re-seeding. A code whose usage falls below 0.3 of the mean is set to a feature of the
         current batch. There is no colour jitter, because the tokens must tell colours apart.
"""

from vlbeit_jax.config.common import OptimizerConfig, RunConfig
from vlbeit_jax.config.networks import VisualTokenizerConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.config.streams import ViewStreamConfig
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.vqkd import VQKD


def get_config():
    """See the module's docstring."""
    task = VQKD(
        model=VisualTokenizerConfig(
            image_size=64,
            patch_size=8,
            width=128,
            heads=4,
            ffn_width=512,
            encoder_depth=2,
            decoder_depth=2,
            codes=256,
            code_width=16,
            kmeans_batches=16,
            reseed_below=0.3,
        ),
        image=ViewStreamConfig(
            sources=("sample:pairs",), batch_size=64, crop_scale=0.3, colour_jitter=0.0
        ),
    )
    run = RunConfig(
        steps=500, log_every=50, evaluate_every=100, evaluate_batches=0, checkpoint_every=100
    )
    optimizer = OptimizerConfig(
        peak_lr=1e-3, warmup_steps=50, beta2=0.99, eps=1e-8, weight_decay=1e-4
    )
    return to_config_dict(Config(task=task, run=run, optimizer=optimizer))
