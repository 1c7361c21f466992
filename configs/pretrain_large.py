"""VL-BEiT large: 24 blocks of width 1024, vision-language experts in the top 3.

Command: as configs/pretrain_base.py, with --config=configs/pretrain_large.py --config.mesh.fsdp=16
Cost:    about 3.4 times the base model's operations a step. Not run by us.
Figures: the paper describes only the base model. Width, depth and heads are those of BEiT large,
         the experts those of VLMo large. The learning rate is half that of base, as in BEiT's
         large recipes; the rest is as in base.
"""

from vlbeit_jax.config.common import LoaderConfig, MeshConfig, OptimizerConfig
from vlbeit_jax.config.networks import SIZES, ModelConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.pretrain import Pretrain


def get_config():
    """See the module's docstring."""
    config = Config(
        task=Pretrain(model=ModelConfig(**SIZES["large"])),
        loader=LoaderConfig(workers=8),
        optimizer=OptimizerConfig(peak_lr=1e-3),
        mesh=MeshConfig(fsdp=16),
    )
    return to_config_dict(config)
