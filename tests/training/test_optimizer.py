"""Learning rate, weight decay by role, clipping."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vlbeit_jax.config.common import OptimizerConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.models.classifier import Classifier
from vlbeit_jax.models.params import ParamInfo
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.training.optimizer import (
    describe_factors,
    learning_rate,
    make_optimizer,
    rate_factors,
)
from vlbeit_jax.training.param_names import leaf_name
from vlbeit_jax.training.state import declarations
from vlbeit_jax.types import Modality, Positions


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


@pytest.mark.parametrize("decay", ["cosine", "linear", "polynomial"])
def test_the_rate_of_a_number_uses_no_device(decay):
    """The log asks at every step, and a device would answer after the step that it is running."""
    rate = learning_rate(OptimizerConfig(warmup_steps=10, lr_decay=decay), 100)
    for step in (0, 9, 10, 55, 100):
        on_host, on_device = rate(step), rate(jnp.int32(step))
        assert isinstance(on_device, jax.Array) and not isinstance(on_host, jax.Array)
        np.testing.assert_allclose(on_host, on_device, rtol=1e-5, atol=1e-9)


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


@pytest.mark.parametrize(("decay", "power"), [("linear", 1.0), ("polynomial", 2.0)])
def test_other_decays_are_powers_of_what_is_left(decay, power):
    config = OptimizerConfig(
        peak_lr=2e-3, end_lr=1e-5, warmup_steps=100, lr_decay=decay, lr_power=2.0
    )
    rate = learning_rate(config, 1000)
    left = 1 - np.arange(900) / 900
    expected = np.concatenate([np.linspace(0, 2e-3, 100), 1e-5 + (2e-3 - 1e-5) * left**power])
    found = [rate(step) for step in range(1000)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


def classifier_info(depth=12):
    config = ModelConfig(
        image_size=8,
        patch_size=4,
        width=8,
        depth=depth,
        heads=2,
        ffn_width=16,
        fused_layers=1,
        text_positions=8,
        vocabulary=300,
    )
    network = Classifier(config, 3, Modality.VISION, "mean")
    return declarations(lambda key: network.init(key, method="init_all")["params"])


def test_factors_are_beits_table():
    config = OptimizerConfig(layer_decay=0.65, head_factor=20.0)
    factors = rate_factors(config, classifier_info().info)
    assert len({round(each, 12) for each in factors.values()}) == 14
    assert factors["vision_embed/patch/kernel"] == pytest.approx(0.003697, rel=1e-3)
    for block in range(12):
        name = f"encoder/block_{block}/attention/qkv"
        assert factors[name] == pytest.approx(0.65 ** (12 - block))
    assert factors["head/out/kernel"] == factors["head/norm/scale"] == 20.0
    plain = rate_factors(OptimizerConfig(layer_decay=0.65), classifier_info().info)
    assert plain["head/out/kernel"] == 1.0
    said = describe_factors(config, classifier_info().info)
    assert "0.003697 from vision_embed/" in said and "20 from head/" in said
    assert describe_factors(OptimizerConfig(), classifier_info().info) == ""


@pytest.mark.parametrize(("layer_decay", "head_factor"), [(0.65, 20.0), (1.0, 1.0)])
def test_updates_equal_those_of_pytorchs_parameter_groups(layer_decay, head_factor):
    torch = pytest.importorskip("torch")
    shapes, info = classifier_info(depth=2)
    config = OptimizerConfig(
        peak_lr=0.01,
        end_lr=1e-4,
        warmup_steps=3,
        weight_decay=0.1,
        clip_norm=0.0,
        eps=1e-8,
        layer_decay=layer_decay,
        head_factor=head_factor,
    )
    rng, steps = np.random.default_rng(0), 20
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    factors = rate_factors(config, info)
    optimizer = make_optimizer(config, steps, info)
    schedule, state = learning_rate(config, steps), optimizer.init(params)
    names = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    copies = [torch.tensor(np.array(leaf)) for leaf in jax.tree.leaves(params)]
    decays = [each.decay for each in jax.tree.leaves(info)]
    groups = [
        {"params": [copy], "weight_decay": 0.1 * decayed, "factor": factors[name]}
        for name, copy, decayed in zip(names, copies, decays, strict=True)
    ]
    other = torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), eps=config.eps)
    for step in range(steps):
        gradients = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
        gradients = jax.tree.map(lambda leaf: leaf.astype(np.float32), gradients)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for group, copy, gradient in zip(
            other.param_groups, copies, jax.tree.leaves(gradients), strict=True
        ):
            group["lr"], copy.grad = (
                float(schedule(step)) * group["factor"],
                torch.tensor(np.array(gradient)),
            )
        other.step()
    for name, found, copy in zip(names, jax.tree.leaves(params), copies, strict=True):
        np.testing.assert_allclose(found, copy.numpy(), atol=1e-5, rtol=1e-5, err_msg=name)


def test_scaling_gradients_instead_would_change_nothing():
    """Control of the test above: AdamW divides the scale of gradients out."""
    shapes, info = classifier_info(depth=2)
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    config = OptimizerConfig(warmup_steps=0, clip_norm=0.0, eps=1e-12)
    optimizer = make_optimizer(config, 10, info)
    ones = jax.tree.map(jnp.ones_like, params)
    small = jax.tree.map(lambda leaf: 0.01 * leaf, ones)
    found = [optimizer.update(g, optimizer.init(params), params)[0] for g in (ones, small)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), *found)
