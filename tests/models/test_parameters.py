"""How many parameters there are, and what they start from."""

import jax
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from tests.models import tiny_models as tiny
from vlbeit_jax.config.networks import SIZES, ModelConfig
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.models.vocabulary import padded_vocabulary
from vlbeit_jax.types import Positions


def parameter_count(config):
    shapes = jax.eval_shape(
        lambda key: VLBEiT(config).init(key, method="init_all"), jax.random.key(0)
    )
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def expected_count(config):
    d, f, rows = config.width, config.ffn_width, -(-config.vocabulary // 128) * 128
    n, t, grid = config.patches, config.text_positions, config.image_size // config.patch_size
    vision = (
        3 * config.patch_size**2 * d + d + d + d + d
    )  # patch and its bias, mask token, CLS, type
    text = rows * d + d
    places = (n + 1) * d + t * d
    if config.positions is Positions.RELATIVE:
        places = (
            (2 * grid - 1) ** 2 + 3 + 2 + (2 * t - 3) + 3
        ) * config.heads * config.depth + 2 * d  # text norm
    attention = 2 * d + 3 * d * d + 2 * d + d * d + d  # norm, qkv, query and value bias, out
    expert = 2 * d + d * f + f + f * d + d
    encoder = config.depth * (attention + 2 * d + 2 * expert) + config.fused_layers * expert + 2 * d
    heads = d * config.codes + config.codes + d * rows + rows
    return vision + text + places + encoder + heads


@pytest.mark.parametrize(
    ("size", "positions"),
    [
        # One formula counts every size; to count the blocks of the largest takes seconds.
        pytest.param(size, positions, marks=() if size == usual else pytest.mark.slow)
        for positions, usual in ((Positions.ABSOLUTE, "tiny"), (Positions.RELATIVE, "base"))
        for size in SIZES
    ],
)
def test_parameter_count(size, positions):
    config = ModelConfig(**SIZES[size], positions=positions)
    assert parameter_count(config) == expected_count(config)


def test_parameter_count_of_base():
    assert parameter_count(ModelConfig(**SIZES["base"])) == 256_711_680


def test_parameter_count_of_vlmo():
    """VLMo's count is ours less padding, plus parts of BERT's embedding and head that we omit."""
    d, vocabulary = 768, 30522
    config = ModelConfig(
        **SIZES["base"], positions=Positions.RELATIVE, text_positions=196, vocabulary=vocabulary
    )
    # A padding row of the embedding has d parameters; one of the head also has a bias.
    padding_rows = (padded_vocabulary(vocabulary) - vocabulary) * (2 * d + 1)
    bert_embedding = 196 * d + 2 * d  # unused positions, inner types
    head_transform = d * d + d + 2 * d
    assert parameter_count(config) - padding_rows + bert_embedding + head_transform == 205_914_266


def test_fresh_parameters():
    """Standard deviation .02, cut at one sigma; last projections / sqrt(2 l); LayerScale .1."""
    config = tiny.model_config(Positions.RELATIVE)
    fresh = tiny.usual_jit(lambda key: VLBEiT(config).init(key, method="init_all")["params"])(
        jax.random.key(0)
    )
    for path, leaf in flatten_dict(nn.unbox(fresh)).items():
        constant = {
            "scale": 1,
            "attention_scale": 0.1,
            "expert_scale": 0.1,
            "relative_positions": 0,
        }.get(path[-1])
        constant = 0 if "bias" in path[-1] else constant
        if constant is not None:
            np.testing.assert_array_equal(
                leaf, np.full(leaf.shape, constant, np.float32), str(path)
            )
            continue
        if path in (
            ("text_embed", "words"),
            ("language_head", "kernel"),
        ):  # What pads the vocabulary is zero and stays so.
            rows = leaf if path[-1] == "words" else leaf.T
            assert len(rows) == 256 and not rows[config.vocabulary :].any()
            leaf = rows[: config.vocabulary]
        last = path[-1] == "out" or path[-2] == "down"
        size = 0.02 / (2 * (int(path[1].removeprefix("block_")) + 1)) ** 0.5 if last else 0.02
        assert np.abs(leaf).max() <= size * 1.000001, path
        assert abs(np.std(leaf) / (0.539 * size) - 1) < 4 * leaf.size**-0.5, path
        assert abs(np.mean(leaf)) < 4 * size * leaf.size**-0.5, path
