"""VL-BEiT's invariants: parameter counts, routing, what may not matter, drop path, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from tests.models import tiny_models as tiny
from vlbeit_jax.models.multiway import EncoderConfig, Multiway
from vlbeit_jax.models.tokens import Tokens
from vlbeit_jax.types import Modality, Positions, Special

every_stream = pytest.mark.parametrize("stream", tiny.STREAMS)
every_scheme = pytest.mark.parametrize("positions", tiny.POSITIONS)


def losses_and_gradients(config, stream, params=None):
    batch = tiny.inputs(config, stream)
    params = tiny.random_params(config) if params is None else params
    losses, gradients = tiny.losses_and_gradients(config)(
        params, batch, tiny.targets(config, batch)
    )
    return losses, {path: np.asarray(gradient) for path, gradient in gradients.items()}


def assert_same_bits(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def random_params(encoder, tokens):
    return tiny.randomise(
        jax.eval_shape(lambda key: encoder.init(key, tokens)["params"], jax.random.key(0)), 0, 1.0
    )


@every_scheme
def test_experts_exist_only_where_they_are_used(positions):
    config = tiny.model_config(positions)
    encoder = tiny.random_params(config)["encoder"]
    found = [
        {"vision", "language", "vision_language"} & set(encoder[f"block_{layer}"])
        for layer in range(config.depth)
    ]
    below, fused = {"vision", "language"}, {"vision", "language", "vision_language"}
    assert found == [below, fused, fused]


ROUTES = {  # experts that see a token: below the fused blocks, and in them
    "image": ({"vision"}, {"vision"}),
    "text": ({"language"}, {"language"}),
    "pair": ({"vision", "language"}, {"vision_language"}),
}


@every_stream
@every_scheme
def test_gradients_are_exactly_zero_where_nothing_is_routed(stream, positions):
    config = tiny.model_config(positions)
    _, gradients = losses_and_gradients(config, stream)
    for path, gradient in gradients.items():
        if (
            path[0] == "encoder"
            and path[2:3]
            and path[2] in ("vision", "language", "vision_language")
        ):
            used = path[2] in ROUTES[stream][path[1] != "block_0"]
        elif path[0] in ("vision_embed", "vision_head"):
            used = stream != "text"
        elif path[0] in ("text_embed", "language_head"):
            used = stream != "image"
        else:  # attention, its norm, both scales, final norm, relative positions
            used = True
        assert gradient.any() == used, path


@every_stream
def test_relative_rows_of_absent_offsets_get_no_gradient(stream):
    config = tiny.model_config(Positions.RELATIVE)
    _, gradients = losses_and_gradients(config, stream)
    found = gradients["encoder", "relative_positions"].any(axis=(1, 2))
    images, crossings, middle = 25 + 3, 2, 28 + 2 + config.text_positions - 2
    expected = np.zeros(28 + 2 + 2 * config.text_positions, bool)
    if stream != "text":
        expected[:images] = True
    if stream != "image":
        expected[middle - tiny.TEXT_LENGTH + 2 : middle + tiny.TEXT_LENGTH - 1] = True
        expected[-3:] = True
    if stream == "pair":
        expected[images : images + crossings] = True
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("stream", ["text", "pair"])
def test_padding_rows_of_the_vocabulary_are_never_predicted(stream):
    config = tiny.model_config()
    logits = np.asarray(
        tiny.outputs(config)(tiny.random_params(config), tiny.inputs(config, stream))[1][
            Modality.LANGUAGE
        ]
    )
    assert logits.shape[-1] == 256
    assert np.isfinite(logits[..., : config.vocabulary]).all()
    assert (logits[..., config.vocabulary :] == -np.inf).all()


@every_scheme
@pytest.mark.parametrize("stream", ["image", "pair"])
def test_pixels_under_the_mask_do_not_matter(stream, positions):
    config = tiny.model_config(positions)
    params, batch = tiny.random_params(config), tiny.inputs(config, stream)
    masked = np.zeros((tiny.BATCH, config.patches), bool)
    np.put_along_axis(masked, np.asarray(batch.masked_patches), True, 1)
    pixels = (
        masked.reshape(tiny.BATCH, config.grid, config.grid)
        .repeat(config.patch_size, 1)
        .repeat(config.patch_size, 2)
    )
    other = tiny.images(config, seed=7)
    run = tiny.outputs(config)
    assert_same_bits(
        run(params, batch.replace(image=jnp.where(pixels[..., None], other, batch.image))),
        run(params, batch),
    )
    seen, _ = run(params, batch.replace(image=jnp.where(pixels[..., None], batch.image, other)))
    assert (np.abs(seen.x - run(params, batch)[0].x).max(axis=-1) > 1e-3).all()


@every_scheme
@pytest.mark.parametrize("stream", ["text", "pair"])
def test_what_padding_is_embedded_as_does_not_matter(stream, positions):
    config = tiny.model_config(positions)
    params, batch = tiny.random_params(config), tiny.inputs(config, stream)
    flat = flatten_dict(params)
    words = flat["text_embed", "words"]
    changed = unflatten_dict(
        flat | {("text_embed", "words"): words.at[Special.PAD].set(1e3 * words[Special.PAD] + 5)}
    )
    (found, found_logits), (expected, expected_logits) = (
        tiny.outputs(config)(p, batch) for p in (changed, params)
    )
    assert_same_bits(found_logits, expected_logits)
    assert_same_bits(found.x[expected.valid], expected.x[expected.valid])
    assert not np.array_equal(found.x, expected.x)


@every_stream
def test_content_of_invalid_tokens_does_not_matter(stream):
    """The same one level down, for any tokens."""
    layout = {
        "image": ("vision",),
        "text": ("language",),
        "pair": ("vision", "language"),
    }[stream]
    layout = tuple((Modality(name), 10) for name in layout)
    length = 10 * len(layout)
    rng = np.random.default_rng(0)
    valid, x = (
        rng.random((4, length)) < 0.6,
        jnp.asarray(rng.normal(size=(4, length, 24)), jnp.float32),
    )
    valid[:, 0] = True
    encoder = Multiway(
        EncoderConfig(
            width=24,
            depth=2,
            heads=3,
            ffn_width=40,
            fused_layers=1,
            layer_scale=0.1,
            dtype=jnp.dtype("float32"),
        )
    )
    params = random_params(encoder, Tokens(x, None, layout))
    run = tiny.usual_jit(
        lambda x: encoder.apply({"params": params}, Tokens(x, jnp.asarray(valid), layout)).tokens.x
    )
    other = jnp.where(valid[..., None], x, 1e4 * jnp.roll(x, 1, axis=0))
    assert_same_bits(run(other)[valid], run(x)[valid])


@every_scheme
@pytest.mark.parametrize("stream", ["text", "pair"])
def test_more_padding_changes_nothing(stream, positions):
    config = tiny.model_config(positions)
    params, batch = tiny.random_params(config), tiny.inputs(config, stream)
    longer = batch.replace(text=jnp.pad(batch.text, ((0, 0), (0, 2)), constant_values=Special.PAD))
    for modality, expected in tiny.outputs(config)(params, batch)[1].items():
        np.testing.assert_allclose(
            tiny.outputs(config)(params, longer)[1][modality], expected, rtol=0, atol=1e-5
        )


@every_stream
def test_examples_do_not_see_each_other(stream):
    config = tiny.model_config(Positions.RELATIVE)
    params, batch, other = (
        tiny.random_params(config),
        tiny.inputs(config, stream),
        tiny.inputs(config, stream, seed=3),
    )
    mixed = jax.tree.map(lambda a, b: jnp.concatenate([a[:1], b[1:]]), batch, other)
    run = tiny.outputs(config)
    for modality, expected in run(params, batch)[1].items():
        assert_same_bits(run(params, mixed)[1][modality][0], expected[0])
