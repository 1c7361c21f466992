"""Tiny networks with random parameters, and batches for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from tests.quick_compilation import WITHOUT_FUSION_EMITTERS, known_flags
from vlbeit_jax.config.networks import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.convert.reference import Net
from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.visual_tokenizer import VisualTokenizer
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.objectives.masked_prediction import TERMS
from vlbeit_jax.ops.losses import cross_entropy
from vlbeit_jax.types import Modality, Positions, Special

STREAMS, POSITIONS = tuple(TERMS), tuple(Positions)
BATCH, TEXT_LENGTH = 3, 7
# Compiles with the fusion emitters that users have. Without them sums have another order, and the
# largest error is 2.2e-6 instead of 0.8e-6.
USUAL = {"xla_cpu_use_fusion_emitters": True} if WITHOUT_FUSION_EMITTERS in known_flags() else {}
usual_jit = functools.partial(jax.jit, compiler_options=USUAL)
LENGTHS = (TEXT_LENGTH, 4, 5)  # real pieces of each text


def model_config(positions=Positions.ABSOLUTE, **changes):
    """A model in which no two dimensions are equal.

    The top 2 of 3 blocks have vision-language experts; the vocabulary is padded from 150 to 256.
    """
    settings = {
        "image_size": 12,
        "patch_size": 4,
        "width": 24,
        "depth": 3,
        "heads": 3,
        "ffn_width": 40,
        "fused_layers": 2,
        "text_positions": 9,
        "vocabulary": 150,
        "codes": 50,
        "drop_path": 0.0,
        "matmul": "float32",
    }
    return ModelConfig(positions=positions, **settings | changes)


def tokenizer_config(**changes):
    settings = {
        "image_size": 12,
        "patch_size": 4,
        "width": 24,
        "heads": 3,
        "ffn_width": 40,
        "encoder_depth": 2,
        "decoder_depth": 1,
        "codes": 20,
        "code_width": 6,
        "matmul": "float32",
    }
    return VisualTokenizerConfig(**settings | changes)


def randomise(params, seed, embedding):
    """Draws every leaf at random, so that none stays at zero or one.

    ``embedding`` is the standard deviation of embedded tokens.
    """
    rng = np.random.default_rng(seed)

    def leaf(path, value):
        noise = rng.normal(size=value.shape)
        if "embed" in path[0]:
            return noise * embedding / (value.shape[0] ** 0.5 if path[-1] == "kernel" else 1)
        if path[-1] in ("kernel", "qkv"):
            return noise * 1.5 / value.shape[0] ** 0.5
        if path[-1] == "out":
            return noise * 1.5 / (value.shape[0] * value.shape[1]) ** 0.5
        if path[-1] == "scale":
            return 1 + 0.3 * noise
        return noise * {"attention_scale": 0.2, "expert_scale": 0.2, "relative_positions": 1.0}.get(
            path[-1], 0.1
        )

    flat = flatten_dict(nn.unbox(params))
    return unflatten_dict(
        {path: jnp.asarray(leaf(path, value), jnp.float32) for path, value in sorted(flat.items())}
    )


@functools.cache
def random_params(config, embedding=0.05):
    """By default tokens are as small as after initialisation, so LayerNorm's epsilon matters."""
    shapes = jax.eval_shape(
        lambda key: VLBEiT(config).init(key, method="init_all")["params"], jax.random.key(0)
    )
    return randomise(shapes, 0, embedding)


@functools.cache
def random_tokenizer(config, target_width):
    """Network, parameters and a codebook of unit vectors."""
    model = VisualTokenizer(config, target_width)
    rng = np.random.default_rng(0)
    codebook = rng.normal(size=(config.codes, config.code_width))
    codebook = jnp.asarray(codebook / np.linalg.norm(codebook, axis=-1, keepdims=True), jnp.float32)
    shapes = jax.eval_shape(
        lambda key: model.init(key, images(config), codebook)["params"], jax.random.key(0)
    )
    return model, randomise(shapes, 1, 1.0), codebook


def images(config, seed=0, batch=BATCH):
    shape = (batch, config.image_size, config.image_size, 3)
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, shape), jnp.uint8)


def inputs(config, stream, seed=0):
    """Corrupted images with 4 masked patches each, texts of LENGTHS with 2 masked pieces each."""
    rng = np.random.default_rng(seed)
    present = {}
    if stream != "text":
        masked = np.stack([rng.permutation(config.patches)[:4] for _ in range(BATCH)])
        present |= {"image": images(config, seed), "masked_patches": jnp.asarray(masked)}
    if stream != "image":
        text = rng.integers(Special.MASK, config.vocabulary, (BATCH, TEXT_LENGTH))
        text[:, 0] = Special.CLS
        for row, length in enumerate(LENGTHS):
            text[row, length - 1] = Special.SEP
            text[row, length:] = Special.PAD
        masked = np.stack([1 + rng.permutation(length - 2)[:2] for length in LENGTHS])
        present |= {"text": jnp.asarray(text), "text_masked": jnp.asarray(masked)}
    return Inputs(**present)


def targets(config, found, seed=0):
    """An answer for every masked position."""
    rng = np.random.default_rng(seed)
    answers = {}
    if found.masked_patches is not None:
        answers[Modality.VISION] = jnp.asarray(
            rng.integers(0, config.codes, found.masked_patches.shape)
        )
    if found.text_masked is not None:
        answers[Modality.LANGUAGE] = jnp.asarray(
            rng.integers(0, config.vocabulary, found.text_masked.shape)
        )
    return answers


@functools.cache
def outputs(config):
    """(params, inputs) -> final states of all tokens, and the logits, in full float32.

    By default, accelerators multiply float32 in lower precision.
    """
    model = VLBEiT(config)

    @usual_jit
    def run(params, batch):
        with jax.default_matmul_precision("highest"):
            return model.apply({"params": params}, batch, method="encode"), model.apply(
                {"params": params}, batch, method="logits"
            )

    return run


@functools.cache
def losses_and_gradients(config):
    """(params, inputs, answers) -> mean losses by modality, gradients of their sum by path."""
    model = VLBEiT(config)

    def losses(params, batch, answers):
        with jax.default_matmul_precision("highest"):
            logits = model.apply({"params": params}, batch, method="logits")
        found = {
            modality: cross_entropy(logits[modality], answers[modality]).loss.mean()
            for modality in answers
        }
        return sum(found.values()), found

    @usual_jit
    def run(params, batch, answers):
        gradients, found = jax.grad(losses, has_aux=True)(params, batch, answers)
        return found, flatten_dict(gradients)

    return run


def reference_net(config, **changes):
    settings = {
        "depth": config.depth,
        "heads": config.heads,
        "grid": config.grid,
        "patch": config.patch_size,
        "fused": config.fused_layers,
        "text_positions": config.text_positions,
        "vocabulary": config.vocabulary,
        "relative": config.positions is Positions.RELATIVE,
    }
    return Net(**settings | changes)


def vit_nets(config):
    """Encoder and decoder of VQ-KD; the decoder's patches are the codes, one each."""
    grid = config.image_size // config.patch_size
    return (
        Net(depth=config.encoder_depth, heads=config.heads, grid=grid, patch=config.patch_size),
        Net(depth=config.decoder_depth, heads=config.heads, grid=grid, patch=1),
    )
