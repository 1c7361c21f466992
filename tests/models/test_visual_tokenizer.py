"""VQ-KD: where gradients go, what codes depend on, what the pixel teacher can tell apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.models import tiny_models as tiny
from vlbeit_jax.config.networks import VisualTokenizerConfig
from vlbeit_jax.models.teacher import PixelTeacher
from vlbeit_jax.models.visual_tokenizer import VisualTokenizer

CONFIG = tiny.tokenizer_config()
WIDTH = 11  # of the teacher


@functools.cache
def compiled(method=None):
    model, params, codebook = tiny.random_tokenizer(CONFIG, WIDTH)
    run = tiny.usual_jit(
        lambda image, codebook: model.apply({"params": params}, image, codebook, method=method)
    )
    return lambda image, codebook=codebook: run(image, codebook)


@functools.cache
def gradients():
    """Gradients of a random sum of the predictions, for the parameters (by path) and codebook."""
    model, params, codebook = tiny.random_tokenizer(CONFIG, WIDTH)
    image = tiny.images(CONFIG)
    weight = np.random.default_rng(0).normal(size=(tiny.BATCH, 9, WIDTH))

    def loss(params, codebook):
        return (model.apply({"params": params}, image, codebook)[2] * weight).sum()

    of_params, of_codebook = tiny.usual_jit(jax.grad(loss, argnums=(0, 1)))(params, codebook)
    return flatten_dict(of_params), of_codebook


def grey(level):
    return jnp.full((1, 12, 12, 3), level, jnp.uint8)


def test_gradient_passes_the_quantizer():
    found, _ = gradients()
    assert {path[0] for path in found} == {
        "encoder_embed",
        "encoder",
        "to_code",
        "decoder_embed",
        "decoder",
        "to_target",
    }
    assert [path for path, gradient in found.items() if not gradient.any()] == []


def test_codebook_gets_no_gradient():
    assert not gradients()[1].any()


def test_decoder_sees_the_code_and_not_the_feature():
    model, params, codebook = tiny.random_tokenizer(CONFIG, WIDTH)
    _, codes, predicted = compiled()(tiny.images(CONFIG))
    expected = tiny.usual_jit(lambda z: model.apply({"params": params}, z, method="decode"))(
        codebook[codes]
    )
    np.testing.assert_allclose(predicted, expected, rtol=0, atol=1e-5)
    features, _, _ = compiled()(tiny.images(CONFIG))
    assert np.abs(features - codebook[codes]).max() > 0.1


def test_features_are_unit_vectors_and_codes_the_nearest():
    _, _, codebook = tiny.random_tokenizer(CONFIG, WIDTH)
    features, codes, predicted = compiled()(tiny.images(CONFIG))
    assert (features.shape, codes.shape, predicted.shape) == ((3, 9, 6), (3, 9), (3, 9, WIDTH))
    np.testing.assert_allclose(np.linalg.norm(features, axis=-1), 1, atol=1e-6)
    distances = np.linalg.norm(np.asarray(features)[:, :, None] - np.asarray(codebook), axis=-1)
    np.testing.assert_array_equal(codes, distances.argmin(-1))


def test_codes_do_not_depend_on_the_rest_of_the_batch():
    encode, batch, other = compiled("encode"), tiny.images(CONFIG), tiny.images(CONFIG, seed=5)
    expected = np.asarray(encode(batch))
    assert len(np.unique(expected)) > 3
    np.testing.assert_array_equal(encode(batch[::-1])[::-1], expected)
    np.testing.assert_array_equal(encode(jnp.concatenate([batch[:1], other[1:]]))[0], expected[0])
    for row in range(tiny.BATCH):
        np.testing.assert_array_equal(encode(batch[row : row + 1])[0], expected[row])


def test_codes_follow_a_reordered_codebook():
    _, _, codebook = tiny.random_tokenizer(CONFIG, WIDTH)
    order = np.random.default_rng(0).permutation(CONFIG.codes)
    encode, image = compiled("encode"), tiny.images(CONFIG)
    np.testing.assert_array_equal(order[encode(image, codebook[order])], encode(image))


def test_parameter_count_of_base():
    """BEiT v2's encoder_base_decoder_3x768x12 for CLIP has 108.83M parameters that are trained."""
    config = VisualTokenizerConfig()
    shapes = jax.eval_shape(
        lambda key: VisualTokenizer(config, 512).init(
            key, tiny.images(config, batch=1), jnp.zeros((8192, 32))
        ),
        jax.random.key(0),
    )
    d, f = 768, 3072
    block = 2 * d + 3 * d * d + 2 * d + d * d + d + 2 * d + d * f + f + f * d + d
    vit = 12 * block + 3 * block + 2 * (d + 197 * d + 2 * d)  # CLS, positions, last norm
    patches = (768 * d + d) + (32 * d + d)
    projections = 2 * (d * d + d) + (d * 32 + 32) + (d * 512 + 512)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == vit + patches + projections
    assert round((vit + patches + projections) / 1e6, 2) == 108.83


@pytest.mark.parametrize("scale", [1, 0.01, 30])
def test_pixel_teacher_gives_the_image_back(scale):
    teacher, image = PixelTeacher(4), tiny.images(CONFIG)
    found = teacher.images(scale * teacher.targets({}, image))
    assert found.dtype == jnp.uint8
    assert np.abs(np.asarray(found, int) - np.asarray(image, int)).max() <= 1


def test_pixel_teacher_has_unit_targets():
    teacher = PixelTeacher(4)
    found = teacher.targets({}, tiny.images(CONFIG))
    assert found.shape == (tiny.BATCH, 9, teacher.width) == (tiny.BATCH, 9, 49)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize(("one", "other"), [(128, 255), (0, 255), (0, 128), (128, 160)])
def test_pixel_teacher_tells_brightness_apart(one, other):
    teacher = PixelTeacher(4)
    cosine = (teacher.targets({}, grey(one)) * teacher.targets({}, grey(other))).sum(-1)
    assert (cosine < 0.98).all()


@pytest.mark.parametrize("level", [0, 1, 127, 128, 254, 255])
def test_pixel_teacher_gives_one_grey_back(level):
    teacher = PixelTeacher(4)
    np.testing.assert_array_equal(teacher.images(teacher.targets({}, grey(level))), grey(level))
