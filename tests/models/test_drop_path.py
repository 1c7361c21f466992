"""Drop path, and what precision does."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from tests.models import tiny_models as tiny
from tests.models.test_vlbeit import (
    assert_same_bits,
    every_stream,
    losses_and_gradients,
    random_params,
)
from vlbeit_jax.models.layers import drop_path
from vlbeit_jax.models.multiway import EncoderConfig, Multiway
from vlbeit_jax.models.tokens import Tokens
from vlbeit_jax.objectives.base import uniform_per_row
from vlbeit_jax.types import Modality, Positions


@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_drop_path_keeps_whole_examples(rate):
    count = 10_000
    x = jnp.asarray(np.random.default_rng(0).normal(size=(count, 2, 3)), jnp.float32)
    found = np.asarray(drop_path(x, rate, jax.random.uniform(jax.random.key(0), (count,))))
    kept = found.any(axis=(1, 2))
    np.testing.assert_allclose(found, np.where(kept[:, None, None], x / (1 - rate), 0), rtol=1e-6)
    assert abs(kept.mean() - (1 - rate)) < 5 * (rate * (1 - rate) / count) ** 0.5


def test_draws_belong_to_rows():
    rows, key = jnp.arange(12), jax.random.key(3)
    draws = uniform_per_row(key, rows, 5, 2)
    assert draws.shape == (12, 5, 2) and 0 <= draws.min() and draws.max() < 1
    np.testing.assert_array_equal(uniform_per_row(key, rows[7:9], 5, 2), draws[7:9])
    assert (
        len(np.unique(draws)) == draws.size
        and not np.isin(uniform_per_row(jax.random.key(4), rows, 5, 2), draws).any()
    )


def test_drop_path_grows_with_depth():
    """Rates are 0, .3 and .6.

    With every other scale at 0, the output shows whether a block's residual was dropped.
    """
    batch, layout = 2000, ((Modality.VISION, 3),)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 8)), jnp.float32).repeat(batch, 0)
    encoder = Multiway(
        EncoderConfig(
            width=8,
            depth=3,
            heads=2,
            ffn_width=8,
            layer_scale=0.1,
            drop_path=0.6,
            dtype=jnp.dtype("float32"),
        )
    )
    params = random_params(encoder, Tokens(x, None, layout))
    run = tiny.usual_jit(
        lambda p, draws: encoder.apply({"params": p}, Tokens(x, None, layout), draws).tokens.x
    )
    draws = uniform_per_row(jax.random.key(1), jnp.arange(batch), 3, 2)
    flat = flatten_dict(params)
    silent = {
        path: jnp.zeros_like(leaf) if path[-1].endswith("_scale") else leaf
        for path, leaf in flat.items()
    }
    unmoved = run(unflatten_dict(silent), draws)
    dropped = {}
    for path in [path for path in flat if path[-1].endswith("_scale")]:
        found = run(unflatten_dict(silent | {path: flat[path]}), draws)
        dropped[path] = np.asarray((found == unmoved).all(axis=(1, 2)))
        rate = 0.3 * int(path[0].removeprefix("block_"))
        assert abs(dropped[path].mean() - rate) <= 5 * (rate * (1 - rate) / batch) ** 0.5, path
    found = [dropped[path] for path in dropped if path[0] != "block_0"]
    assert all(
        abs(np.corrcoef(a, b)[0, 1]) < 5 / batch**0.5
        for i, a in enumerate(found)
        for b in found[:i]
    )


@every_stream
def test_evaluation_has_no_drop_path(stream):
    config = tiny.model_config()
    batch, params = tiny.inputs(config, stream), tiny.random_params(config)
    assert_same_bits(
        tiny.outputs(tiny.model_config(drop_path=0.5))(params, batch),
        tiny.outputs(config)(params, batch),
    )


def relative_error(found, expected):
    """Of trees, by the root of the summed squares."""
    found, expected = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (found, expected)
    )
    finite = np.isfinite(expected)
    return np.linalg.norm(found[finite] - expected[finite]) / np.linalg.norm(expected[finite])


@pytest.mark.parametrize(
    ("stream", "positions"),
    [
        # Pairs and the bias of relative positions go through all products.
        pytest.param(*case, marks=() if case == ("pair", "relative") else pytest.mark.slow)
        for case in itertools.product(tiny.STREAMS, tiny.POSITIONS)
    ],
)
def test_bfloat16_is_close_to_float32(stream, positions):
    config, half = tiny.model_config(positions), tiny.model_config(positions, matmul="bfloat16")
    params, batch = tiny.random_params(config, embedding=1.0), tiny.inputs(config, stream)
    (_, logits), (_, half_logits) = (tiny.outputs(c)(params, batch) for c in (config, half))
    (losses, gradients), (half_losses, half_gradients) = (
        losses_and_gradients(c, stream, params) for c in (config, half)
    )
    assert 1e-4 < relative_error(half_logits, logits) < 1e-2
    assert all(abs(half_losses[modality] - losses[modality]) < 1e-2 for modality in losses)
    assert relative_error(half_gradients, gradients) < 2e-2
    assert {
        found.dtype for found in jax.tree.leaves((half_logits, half_losses, half_gradients))
    } == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("stream", "positions", "matmul"),
    [
        # Pairs go through the blocks of images and of texts; one case each is for the top ones.
        pytest.param(stream, positions, matmul, marks=() if usual else pytest.mark.slow)
        for stream in tiny.STREAMS
        for positions in tiny.POSITIONS
        for matmul in ("float32", "bfloat16")
        for usual in [
            (stream, positions, matmul)
            in [
                # Both are compiled for the test above.
                ("pair", Positions.RELATIVE, "float32"),
                ("pair", Positions.RELATIVE, "bfloat16"),
                ("image", Positions.RELATIVE, "bfloat16"),
                ("text", Positions.ABSOLUTE, "float32"),
            ]
        ]
    ],
)
def test_large_inputs_stay_finite(stream, positions, matmul):
    config = tiny.model_config(positions, matmul=matmul)
    flat = flatten_dict(tiny.random_params(config))
    scaled = {
        path: leaf * (1e4 if path[0] in ("vision_embed", "text_embed") else 1)
        for path, leaf in flat.items()
    }
    losses, gradients = losses_and_gradients(config, stream, unflatten_dict(scaled))
    assert np.isfinite(list(losses.values())).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
