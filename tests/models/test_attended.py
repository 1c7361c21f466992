"""The weights of the last block's CLS token are those with which the block mixes its values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.tiny_models import inputs, model_config, random_params
from vlbeit_jax.models.attended import cls_attention, sees_images_alone
from vlbeit_jax.models.backbone import Backbone, Inputs
from vlbeit_jax.models.decoupled import DecoupledAttention
from vlbeit_jax.models.layers import Attention
from vlbeit_jax.ops.attention import ungroup
from vlbeit_jax.types import Positions, Special

NETWORKS = {
    "absolute": {},
    "relative": {"positions": Positions.RELATIVE},
    "decoupled": {"decoupled": True, "sub_norm": True},
    "loops": {"scan": True},
}


def whole(config, stream):
    """Inputs without masks."""
    found = inputs(config, stream)
    return Inputs(image=found.image, text=found.text)


def normed(params, x, eps):
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * params["scale"]
        + (params["bias"])
    )


def written(config, params, batch):
    """What the last block's attention writes for CLS, and the states that enter the block."""
    backbone = Backbone(config)

    @jax.jit
    def applied(params):
        return backbone.apply(
            {"params": params},
            batch,
            keep=(config.depth - 2,),
            capture_intermediates=lambda each, _: isinstance(each, Attention | DecoupledAttention),
        )

    found, state = applied(params)
    block = state["intermediates"]["encoder"][f"block_{config.depth - 1}"]
    return block["attention"]["__call__"][0][:, 0], found.tokens, found.kept[0]


def from_weights(config, params, tokens, x, weights):
    """The same, in float64, from weights and the values of all tokens."""
    block = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64), params["encoder"][f"block_{config.depth - 1}"]
    )
    own, x = block["attention"], np.asarray(x, np.float64)
    if config.decoupled:
        parts, start = [], 0
        for modality, length in tokens.layout:
            part = normed(own[f"{modality}_norm"], x[:, start : start + length], config.norm_eps)
            value = own[f"{modality}_value"]
            parts.append(part @ value["kernel"] + value["bias"])
            start += length
        values = np.concatenate(parts, axis=1)
    else:
        kernel = np.asarray(ungroup(jnp.asarray(params_qkv(params, config)), config.heads)[2])
        values = normed(block["attention_norm"], x, config.norm_eps) @ kernel.astype(np.float64)
        values = values + own["value_bias"].reshape(-1)
    values = values.reshape(*values.shape[:2], config.heads, -1)
    mixed = np.einsum("bhs,bshk->bhk", np.asarray(weights, np.float64), values)
    mixed = mixed.reshape(len(mixed), -1)
    if not config.decoupled:
        return mixed @ own["out"].reshape(mixed.shape[1], -1) + own["out_bias"]
    mixed = normed(own["vision_inner_norm"], mixed, config.norm_eps)
    return mixed @ own["vision_out"]["kernel"] + own["vision_out"]["bias"]


def params_qkv(params, config):
    return params["encoder"][f"block_{config.depth - 1}"]["attention"]["qkv"]


@pytest.mark.parametrize("stream", ["image", "pair"])
@pytest.mark.parametrize("name", NETWORKS)
def test_values_mixed_by_the_weights_are_what_the_block_writes(name, stream):
    config = model_config(**NETWORKS[name])
    params, batch = random_params(config), whole(config, stream)
    weights = np.asarray(cls_attention(config, params, batch))
    plain = model_config(**NETWORKS[name] | {"scan": False})  # A loop keeps no intermediates.
    output, tokens, x = written(plain, params, batch)
    assert weights.shape == (len(x), config.heads, x.shape[1])
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    output = np.asarray(output)
    found = from_weights(config, params, tokens, x, weights)
    np.testing.assert_allclose(found, output, atol=2e-5 * np.abs(output).max())
    # Control: with equal weights, the result is another one.
    equal = np.full_like(weights, 1 / weights.shape[-1])
    other = from_weights(config, params, tokens, x, equal)
    assert np.abs(other - output).max() > 0.01 * np.abs(output).max()
    if stream == "pair":  # Nothing goes to padding.
        padding = np.asarray(batch.text) == Special.PAD
        assert padding.any()
        assert (weights[:, :, -padding.shape[1] :].max(axis=1)[padding] == 0).all()


def test_a_network_for_pairs_alone_is_known_by_its_experts():
    config = model_config()
    params = random_params(config)
    assert sees_images_alone(config, params)
    last = params["encoder"]["block_2"]
    without = {name: leaves for name, leaves in last.items() if name != "vision"}
    assert not sees_images_alone(config, {"encoder": params["encoder"] | {"block_2": without}})
