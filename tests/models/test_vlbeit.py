"""VL-BEiT's invariants: parameter counts, routing, what may not matter, drop path, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from tests.models import tiny_models as tiny
from vlbeit_jax.config import SIZES, ModelConfig
from vlbeit_jax.models.layers import drop_path
from vlbeit_jax.models.multiway import Multiway, Tokens
from vlbeit_jax.models.vlbeit import VLBEiT, padded_vocabulary
from vlbeit_jax.types import Modality, Positions, Special, Stream

every_stream = pytest.mark.parametrize("stream", tiny.STREAMS)
every_scheme = pytest.mark.parametrize("positions", tiny.POSITIONS)


def losses_and_gradients(config, stream, params=None):
    batch = tiny.inputs(config, stream)
    params = tiny.random_params(config) if params is None else params
    losses, gradients = tiny.losses_and_gradients(config)(params, batch, tiny.targets(config, batch))
    return losses, {path: np.asarray(gradient) for path, gradient in gradients.items()}


def assert_same_bits(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def random_params(encoder, tokens):
    return tiny.randomise(jax.eval_shape(lambda key: encoder.init(key, tokens, False)["params"], jax.random.key(0)), 0, 1.0)


def parameter_count(config):
    shapes = jax.eval_shape(lambda key: VLBEiT(config).init(key, method="init_all"), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def expected_count(config):
    d, f, rows = config.width, config.ffn_width, -(-config.vocabulary // 128) * 128
    n, t, grid = config.patches, config.text_positions, config.image_size // config.patch_size
    vision = 3 * config.patch_size**2 * d + d + d + d + d  # patch and its bias, mask token, CLS, type
    text = rows * d + d
    places = (n + 1) * d + t * d
    if config.positions is Positions.RELATIVE:
        places = ((2 * grid - 1) ** 2 + 3 + 2 + (2 * t - 3) + 3) * config.heads * config.depth
    attention = 2 * d + 3 * d * d + 2 * d + d * d + d  # norm, qkv, query and value bias, out
    expert = 2 * d + d * f + f + f * d + d
    encoder = config.depth * (attention + 2 * d + 2 * expert) + config.fused_layers * expert + 2 * d
    heads = d * config.codes + config.codes + d * rows + rows
    return vision + text + places + encoder + heads


@pytest.mark.parametrize("size", SIZES)
@every_scheme
def test_parameter_count(size, positions):
    config = ModelConfig(**SIZES[size], positions=positions)
    assert parameter_count(config) == expected_count(config)


def test_parameter_count_of_base():
    assert parameter_count(ModelConfig(**SIZES["base"])) == 256_711_680


def test_parameter_count_of_vlmo():
    """From our count to VLMo's (spec section 1.1): BERT's embedding and prediction head have parts that we leave out."""
    d, vocabulary = 768, 30522
    config = ModelConfig(**SIZES["base"], positions=Positions.RELATIVE, text_positions=196, vocabulary=vocabulary)
    padding_rows = (padded_vocabulary(vocabulary) - vocabulary) * (2 * d + 1)  # of the embedding and of the head
    bert_embedding = 196 * d + 2 * d + 2 * d  # unused positions, inner types, norm
    head_transform = d * d + d + 2 * d
    assert parameter_count(config) - padding_rows + bert_embedding + head_transform == 205_914_266


def test_fresh_parameters():
    """Deviation .02 cut at one sigma, the last projection of each branch / sqrt(2 l), LayerScale .1 (spec section 1.6)."""
    config = tiny.model_config(Positions.RELATIVE)
    fresh = tiny.fast_jit(lambda key: VLBEiT(config).init(key, method="init_all")["params"])(jax.random.key(0))
    for path, leaf in flatten_dict(nn.unbox(fresh)).items():
        constant = {"scale": 1, "attention_scale": 0.1, "expert_scale": 0.1, "relative_positions": 0}.get(path[-1])
        constant = 0 if "bias" in path[-1] else constant
        if constant is not None:
            np.testing.assert_array_equal(leaf, np.full(leaf.shape, constant, np.float32), str(path))
            continue
        last = path[-1] == "out" or path[-2] == "down"
        size = 0.02 / (2 * (int(path[1].removeprefix("block_")) + 1)) ** 0.5 if last else 0.02
        assert np.abs(leaf).max() <= size * 1.000001, path
        assert abs(np.std(leaf) / (0.539 * size) - 1) < 4 * leaf.size**-0.5, path
        assert abs(np.mean(leaf)) < 4 * size * leaf.size**-0.5, path


@every_scheme
def test_experts_exist_only_where_they_are_used(positions):
    config = tiny.model_config(positions)
    encoder = tiny.random_params(config)["encoder"]
    found = [{"vision", "language", "vision_language"} & set(encoder[f"block_{layer}"]) for layer in range(config.depth)]
    below, fused = {"vision", "language"}, {"vision", "language", "vision_language"}
    assert found == [below, fused, fused]


ROUTES = {  # experts that see a token: below the fused blocks, and in them
    Stream.IMAGE: ({"vision"}, {"vision"}),
    Stream.TEXT: ({"language"}, {"language"}),
    Stream.PAIR: ({"vision", "language"}, {"vision_language"}),
}


@every_stream
@every_scheme
def test_gradients_are_exactly_zero_where_nothing_is_routed(stream, positions):
    config = tiny.model_config(positions)
    _, gradients = losses_and_gradients(config, stream)
    for path, gradient in gradients.items():
        if path[0] == "encoder" and path[2:3] and path[2] in ("vision", "language", "vision_language"):
            used = path[2] in ROUTES[stream][path[1] != "block_0"]
        elif path[0] in ("vision_embed", "vision_head"):
            used = stream.has_image
        elif path[0] in ("text_embed", "language_head"):
            used = stream.has_text
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
    if stream.has_image:
        expected[:images] = True
    if stream.has_text:
        expected[middle - tiny.TEXT_LENGTH + 2 : middle + tiny.TEXT_LENGTH - 1] = True
        expected[-3:] = True
    if stream is Stream.PAIR:
        expected[images : images + crossings] = True
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("stream", [Stream.TEXT, Stream.PAIR])
def test_padding_rows_of_the_vocabulary_are_never_predicted(stream):
    config = tiny.model_config()
    logits = np.asarray(tiny.outputs(config)(tiny.random_params(config), tiny.inputs(config, stream))[1][Modality.LANGUAGE])
    assert logits.shape[-1] == 256
    assert np.isfinite(logits[..., : config.vocabulary]).all()
    assert (logits[..., config.vocabulary :] == -np.inf).all()


@every_scheme
@pytest.mark.parametrize("stream", [Stream.IMAGE, Stream.PAIR])
def test_pixels_under_the_mask_do_not_matter(stream, positions):
    config = tiny.model_config(positions)
    params, batch = tiny.random_params(config), tiny.inputs(config, stream)
    masked = np.zeros((tiny.BATCH, config.patches), bool)
    np.put_along_axis(masked, np.asarray(batch.image_masked), True, 1)
    pixels = masked.reshape(tiny.BATCH, config.grid, config.grid).repeat(config.patch_size, 1).repeat(config.patch_size, 2)
    other = tiny.images(config, seed=7)
    run = tiny.outputs(config)
    assert_same_bits(run(params, batch.replace(image=jnp.where(pixels[..., None], other, batch.image))), run(params, batch))
    seen, _ = run(params, batch.replace(image=jnp.where(pixels[..., None], batch.image, other)))
    assert (np.abs(seen.x - run(params, batch)[0].x).max(axis=-1) > 1e-3).all()


@every_scheme
@pytest.mark.parametrize("stream", [Stream.TEXT, Stream.PAIR])
def test_what_padding_is_embedded_as_does_not_matter(stream, positions):
    config = tiny.model_config(positions)
    params, batch = tiny.random_params(config), tiny.inputs(config, stream)
    flat = flatten_dict(params)
    words = flat["text_embed", "words"]
    changed = unflatten_dict(flat | {("text_embed", "words"): words.at[Special.PAD].set(1e3 * words[Special.PAD] + 5)})
    (found, found_logits), (expected, expected_logits) = (tiny.outputs(config)(p, batch) for p in (changed, params))
    assert_same_bits(found_logits, expected_logits)
    assert_same_bits(found.x[expected.valid], expected.x[expected.valid])
    assert not np.array_equal(found.x, expected.x)


@every_stream
def test_content_of_invalid_tokens_does_not_matter(stream):
    """The same one level down, for any tokens."""
    layout = {Stream.IMAGE: ("vision",), Stream.TEXT: ("language",), Stream.PAIR: ("vision", "language")}[stream]
    layout = tuple((Modality(name), 10) for name in layout)
    length = 10 * len(layout)
    rng = np.random.default_rng(0)
    valid, x = rng.random((4, length)) < 0.6, jnp.asarray(rng.normal(size=(4, length, 24)), jnp.float32)
    valid[:, 0] = True
    encoder = Multiway(24, 2, 3, 40, 1, 0.1, 0.0, jnp.float32)
    params = random_params(encoder, Tokens(x, None, layout))
    run = tiny.fast_jit(lambda x: encoder.apply({"params": params}, Tokens(x, jnp.asarray(valid), layout), False).x)
    other = jnp.where(valid[..., None], x, 1e4 * jnp.roll(x, 1, axis=0))
    assert_same_bits(run(other)[valid], run(x)[valid])


@every_scheme
@pytest.mark.parametrize("stream", [Stream.TEXT, Stream.PAIR])
def test_more_padding_changes_nothing(stream, positions):
    config = tiny.model_config(positions)
    params, batch = tiny.random_params(config), tiny.inputs(config, stream)
    longer = batch.replace(text=jnp.pad(batch.text, ((0, 0), (0, 2)), constant_values=Special.PAD))
    for modality, expected in tiny.outputs(config)(params, batch)[1].items():
        np.testing.assert_allclose(tiny.outputs(config)(params, longer)[1][modality], expected, rtol=0, atol=1e-5)


@every_stream
def test_examples_do_not_see_each_other(stream):
    config = tiny.model_config(Positions.RELATIVE)
    params, batch, other = tiny.random_params(config), tiny.inputs(config, stream), tiny.inputs(config, stream, seed=3)
    mixed = jax.tree.map(lambda a, b: jnp.concatenate([a[:1], b[1:]]), batch, other)
    run = tiny.outputs(config)
    for modality, expected in run(params, batch)[1].items():
        assert_same_bits(run(params, mixed)[1][modality][0], expected[0])


@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_drop_path_keeps_whole_examples(rate):
    count = 10_000
    x = jnp.asarray(np.random.default_rng(0).normal(size=(count, 2, 3)), jnp.float32)
    found = np.asarray(drop_path(x, rate, jax.random.key(0)))
    kept = found.any(axis=(1, 2))
    np.testing.assert_allclose(found, np.where(kept[:, None, None], x / (1 - rate), 0), rtol=1e-6)
    assert abs(kept.mean() - (1 - rate)) < 5 * (rate * (1 - rate) / count) ** 0.5


def test_drop_path_is_off_without_key():
    x = jnp.ones((4, 2, 3))
    assert drop_path(x, 0.5, None) is x


def test_drop_path_grows_with_depth():
    """Rates 0, .3, .6: whether a residual was dropped shows in what is left when its scale is the only one that is not 0."""
    batch, layout = 2000, ((Modality.VISION, 3),)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 8)), jnp.float32).repeat(batch, 0)
    encoder = Multiway(8, 3, 2, 8, 0, 0.1, 0.6, jnp.float32)
    params = random_params(encoder, Tokens(x, None, layout))
    run = tiny.fast_jit(lambda p, key: encoder.apply({"params": p}, Tokens(x, None, layout), True, rngs={"drop_path": key}).x)
    flat = flatten_dict(params)
    silent = {path: jnp.zeros_like(leaf) if path[-1].endswith("_scale") else leaf for path, leaf in flat.items()}
    unmoved = run(unflatten_dict(silent), jax.random.key(1))
    dropped = {}
    for path in [path for path in flat if path[-1].endswith("_scale")]:
        found = run(unflatten_dict(silent | {path: flat[path]}), jax.random.key(1))
        dropped[path] = np.asarray((found == unmoved).all(axis=(1, 2)))
        rate = 0.3 * int(path[0].removeprefix("block_"))
        assert abs(dropped[path].mean() - rate) <= 5 * (rate * (1 - rate) / batch) ** 0.5, path
    draws = [dropped[path] for path in dropped if path[0] != "block_0"]
    assert all(abs(np.corrcoef(a, b)[0, 1]) < 5 / batch**0.5 for i, a in enumerate(draws) for b in draws[:i])


@every_stream
def test_evaluation_has_no_drop_path(stream):
    config = tiny.model_config()
    batch, params = tiny.inputs(config, stream), tiny.random_params(config)
    assert_same_bits(tiny.outputs(tiny.model_config(drop_path=0.5))(params, batch), tiny.outputs(config)(params, batch))


def relative_error(found, expected):
    """Of trees, by the root of the summed squares."""
    found, expected = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (found, expected))
    finite = np.isfinite(expected)
    return np.linalg.norm(found[finite] - expected[finite]) / np.linalg.norm(expected[finite])


@every_stream
@every_scheme
def test_bfloat16_is_close_to_float32(stream, positions):
    config, half = tiny.model_config(positions), tiny.model_config(positions, matmul="bfloat16")
    params, batch = tiny.random_params(config, embedding=1.0), tiny.inputs(config, stream)
    (_, logits), (_, half_logits) = (tiny.outputs(c)(params, batch) for c in (config, half))
    (losses, gradients), (half_losses, half_gradients) = (losses_and_gradients(c, stream, params) for c in (config, half))
    assert 1e-4 < relative_error(half_logits, logits) < 1e-2
    assert all(abs(half_losses[modality] - losses[modality]) < 1e-2 for modality in losses)
    assert relative_error(half_gradients, gradients) < 2e-2
    assert {found.dtype for found in jax.tree.leaves((half_logits, half_losses, half_gradients))} == {jnp.dtype("float32")}


@every_stream
@every_scheme
@pytest.mark.parametrize("matmul", ["float32", "bfloat16"])
def test_large_inputs_stay_finite(stream, positions, matmul):
    config = tiny.model_config(positions, matmul=matmul)
    flat = flatten_dict(tiny.random_params(config))
    scaled = {path: leaf * (1e4 if path[0] in ("vision_embed", "text_embed") else 1) for path, leaf in flat.items()}
    losses, gradients = losses_and_gradients(config, stream, unflatten_dict(scaled))
    assert np.isfinite(list(losses.values())).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
