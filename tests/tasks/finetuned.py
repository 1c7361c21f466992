"""Fine-tuned runs, opened and evaluated as the commands do."""

from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.runtime.finetuned import FineTunedRun
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.training.mesh import make_mesh


def opened(folder, weights="raw"):
    config = read_config(folder)
    return FineTunedRun.open(folder, config, config.task.open(folder), weights)


def evaluated(folder, sets, split, weights="raw"):
    return opened(folder, weights).evaluate([str(sets)], split, make_mesh(MeshConfig()))
