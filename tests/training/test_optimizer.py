"""Learning rate, weight decay by role, clipping."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vlbeit_jax.config.common import OptimizerConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.models.params import ParamInfo
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.training.optimizer import learning_rate, make_optimizer
from vlbeit_jax.training.state import declarations
from vlbeit_jax.types import Positions


def test_warm_up_is_linear_and_the_cosine_ends_at_end_lr():
    config, steps = OptimizerConfig(peak_lr=2e-3, end_lr=1e-5, warmup_steps=100), 1000
    rate = learning_rate(config, steps)
    wanted = np.concatenate(  # BEiT's two arrays (utils.py, cosine_scheduler).
        [
            np.linspace(0, 2e-3, 100),
            [1e-5 + 0.5 * (2e-3 - 1e-5) * (1 + np.cos(np.pi * i / 900)) for i in range(900)],
        ]
    )
    np.testing.assert_allclose([rate(step) for step in range(steps)], wanted, rtol=1e-5, atol=1e-9)
    assert rate(0) == 0


@pytest.mark.parametrize("positions", Positions)
def test_decay_reaches_kernels_and_word_embeddings_only(positions):
    config = ModelConfig(
        image_size=8,
        patch_size=4,
        width=8,
        depth=2,
        heads=2,
        ffn_width=16,
        fused_layers=1,
        text_positions=8,
        vocabulary=300,
        codes=16,
        positions=positions,
    )
    info = declarations(lambda key: VLBEiT(config).init(key, method="init_all")["params"]).info
    mask = [(path, each.decay) for path, each in jax.tree_util.tree_leaves_with_path(info)]
    decayed = {jax.tree_util.keystr(path, simple=True, separator="/") for path, yes in mask if yes}
    kept = {jax.tree_util.keystr(path, simple=True, separator="/") for path, yes in mask if not yes}
    assert {name.split("/")[-1] for name in decayed} == {"kernel", "qkv", "out", "words"}
    assert {name.split("/")[-1] for name in kept} >= {
        "bias",
        "scale",
        "query_bias",
        "value_bias",
        "out_bias",
        "cls",
        "mask_token",
        "type",
    }
    expected = {"positions"} if positions is Positions.ABSOLUTE else {"relative_positions"}
    assert expected <= {name.split("/")[-1] for name in kept}
    assert {"attention_scale", "expert_scale"} <= {name.split("/")[-1] for name in kept}


def test_gradients_are_clipped_by_their_global_norm():
    config = OptimizerConfig(
        peak_lr=1.0,
        end_lr=1.0,
        warmup_steps=0,
        clip_norm=3.0,
        weight_decay=0.0,
        beta1=0.0,
        beta2=0.0,
        eps=1e6,
    )
    params = {"a": jnp.zeros(3), "b": jnp.zeros(4)}
    optimizer = make_optimizer(config, 10, dict.fromkeys(params, ParamInfo()))
    huge = jax.tree.map(lambda leaf: jnp.full_like(leaf, 100.0), params)
    updates, _ = optimizer.update(huge, optimizer.init(params), params)
    # With this eps Adam divides by a constant, so the update keeps the clipped gradient's length.
    np.testing.assert_allclose(float(optax.tree.norm(updates)) * 1e6, 3.0, rtol=1e-3)


def test_decay_is_decoupled_from_the_gradient():
    config = OptimizerConfig(peak_lr=0.1, end_lr=0.1, warmup_steps=0, weight_decay=0.5)
    info = {"kernel": ParamInfo(decay=True), "bias": ParamInfo()}
    optimizer = make_optimizer(config, 10, info)
    params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
    updates, _ = optimizer.update(
        jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params
    )
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_allclose(updates["bias"], 0.0)
