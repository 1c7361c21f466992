"""Teachers of VQ-KD: what the visual tokenizer's decoder has to predict for every patch.

A teacher is an object with a ``width`` and ``targets(params, images)``. Predictions of the pixel
teacher can also be shown as pictures.
"""

import dataclasses
from typing import Any, ClassVar, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.config.networks import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.models.backbone import Backbone, Inputs
from vlbeit_jax.models.embed import VisionEmbed
from vlbeit_jax.models.layers import LayerNorm, Linear, matmul_dtype
from vlbeit_jax.models.multiway import EncoderConfig, Multiway
from vlbeit_jax.ops.patches import from_patches, normalise, to_patches
from vlbeit_jax.ops.quantize import l2_normalise
from vlbeit_jax.shapes import Array, Float, Tree, UInt8
from vlbeit_jax.types import Modality


@runtime_checkable
class Teacher(Protocol):
    """Gives each patch a direction to predict.

    The length of a target does not matter, because VQ-KD's loss is a cosine.

    Attributes:
      width: of a target.
      centred: whether VQ-KD subtracts the mean target of its first batches.
    """

    width: int
    centred: ClassVar[bool] = False

    def targets(
        self, params: Tree, image: UInt8[Array, "B height width 3"]
    ) -> Float[Array, "B N O"]:
        """Returns a vector for each patch: a unit vector, unless the teacher is centred."""
        ...


class PixelTeacher:
    """Targets are the patch's own pixels in [-1, 1] and one constant.

    A cosine ignores length, so grey and white would be the same direction. The constant sqrt(P)
    (homogeneous coordinates) makes brightness part of the direction. Dividing a prediction by its
    last component recovers the picture.
    """

    centred: ClassVar[bool] = False

    def __init__(self, patch_size: int):
        self.patch_size = patch_size
        self.width = 3 * patch_size**2 + 1

    def targets(
        self, params: Tree, image: UInt8[Array, "B height width 3"]
    ) -> Float[Array, "B N O"]:
        """Returns unit vectors along (pixels, sqrt(P)); there are no parameters."""
        patches = to_patches(normalise(image), self.patch_size)
        constant = jnp.full((*patches.shape[:-1], 1), (self.width - 1) ** 0.5)
        return l2_normalise(jnp.concatenate([patches, constant], axis=-1))

    def images(self, predictions: Float[Array, "B N O"]) -> UInt8[Array, "B height width 3"]:
        """Pixels of (not necessarily unit) predictions."""
        constant = jnp.maximum(predictions[..., -1:], 1e-3) / (self.width - 1) ** 0.5
        pixels = jnp.clip(predictions[..., :-1] / constant, -1, 1)
        return jnp.round((from_patches(pixels, self.patch_size) + 1) * 127.5).astype(jnp.uint8)


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """A vision transformer that was trained elsewhere.

    Attributes:
      kind: "clip" or "dino".
      image_size, patch_size: pixels.
      width, depth, heads, ffn_width: of the transformer.
      out: width of what it says of a patch.
      activation: "gelu", the exact one, or "quick_gelu", OpenAI's approximation of it. CLIP was
        trained with either, and no shape tells with which.
    """

    kind: str
    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    ffn_width: int
    out: int
    activation: str


GELU, QUICK_GELU = "gelu", "quick_gelu"
# Of the published ViT-B/16 that BEiT v2 names, and of teachers that version 0.1.0 imported: their
# description does not say it, and it took every CLIP to be OpenAI's.
USUAL_ACTIVATIONS = {"clip": QUICK_GELU, "dino": GELU}

# Mean and standard deviation of pixels in [0, 1], from each teacher's published preprocessing.
PIXELS = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "dino": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


class ViT(nn.Module):
    """Patch features: DINO's after the last norm; CLIP's also projected to the image-text space.

    Both published networks have a key bias, which this one omits: it adds the same amount to all
    logits of a query, so the softmax cancels it.
    """

    config: ViTConfig
    matmul: str = "auto"

    @nn.compact
    def __call__(self, image: UInt8[Array, "B height width 3"]) -> Float[Array, "B N O"]:
        """Returns the features of each patch."""
        c, dtype, clip = self.config, matmul_dtype(self.matmul), self.config.kind == "clip"
        mean, deviation = (np.array(values, np.float32) for values in PIXELS[c.kind])
        patches = to_patches((image.astype(jnp.float32) / 255 - mean) / deviation, c.patch_size)
        tokens = VisionEmbed(c.width, dtype, maskable=False, typed=False, name="embed")(
            patches, None
        )
        if clip:
            tokens = dataclasses.replace(tokens, x=LayerNorm(eps=1e-5, name="embed_norm")(tokens.x))
        config = EncoderConfig(
            width=c.width,
            depth=c.depth,
            heads=c.heads,
            ffn_width=c.ffn_width,
            dtype=dtype,
            eps=1e-5 if clip else 1e-6,
            quick_gelu=c.activation == QUICK_GELU,
        )
        states = Multiway(config, name="encoder")(tokens).tokens.segment(Modality.VISION)[:, 1:]
        return (
            Linear(c.out, ("embed", None), exact=True, bias=False, name="project")(states)
            if clip
            else states
        )


class ViTTeacher:
    """A vision transformer as a teacher; its parameters are frozen and given with every call."""

    centred: ClassVar[bool] = False

    def __init__(self, config: ViTConfig):
        self.config, self.width = config, config.out
        self._network = ViT(config)

    def targets(
        self, params: Tree, image: UInt8[Array, "B height width 3"]
    ) -> Float[Array, "B N O"]:
        """Returns unit vectors along the features of every patch."""
        features: Any = self._network.apply({"params": params}, image)
        return l2_normalise(features)


# Width of a patch's features: CLIP ViT-B/16's projection, DINO ViT-B/16's own (BEiT v2).
WIDTHS = {"clip": 512, "dino": 768}  # Of features of the base sizes, which BEiT v2 used.


class RunTeacher:
    """The states that a network of this package has of each patch of a whole image.

    A masked network that predicts such states, and then teaches the next network, is dBOT's
    bootstrapping (arXiv 2209.03917); here the states pass through a codebook in between. All
    states share a large component. It would be most of the cosine and says nothing of the patch,
    so the teacher is centred.
    """

    centred: ClassVar[bool] = True

    def __init__(self, model: ModelConfig, blocks: int):
        """Describes the teacher.

        Args:
          model: sizes of its network.
          blocks: 1: targets are the states after the final norm. More: each state of this many
            top blocks is normalised without scale and bias, and they are averaged (data2vec,
            arXiv 2202.03555).
        """
        self.config, self.width, self._blocks = model, model.width, blocks
        self._network = Backbone(model, final_norm=blocks == 1)

    def targets(
        self, params: Tree, image: UInt8[Array, "B height width 3"]
    ) -> Float[Array, "B N O"]:
        """Returns the states of every patch."""
        depth = self.config.depth
        keep = () if self._blocks == 1 else tuple(range(depth - self._blocks, depth))
        encoded: Any = self._network.apply({"params": params}, Inputs(image=image), keep=keep)
        tokens = encoded.tokens
        layers = [dataclasses.replace(tokens, x=_normalised(x)) for x in encoded.kept] or [tokens]
        states = [layer.segment(Modality.VISION)[:, 1:] for layer in layers]
        return jnp.stack(states).mean(axis=0)

    def init(self) -> Tree:
        """Returns the shapes of its parameters, boxed with their ``ParamInfo``."""
        side = self.config.image_size

        def init(key: jax.Array) -> Any:
            return self._network.init(key, Inputs(image=jnp.zeros((1, side, side, 3), jnp.uint8)))

        return jax.eval_shape(init, jax.random.key(0))["params"]


def _normalised(x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
    """Returns each state with mean 0 and variance 1."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + 1e-6)


def target_width(config: VisualTokenizerConfig) -> int:
    """Returns the width of the targets of a visual tokenizer's teacher."""
    if config.teacher == "pixels":
        return PixelTeacher(config.patch_size).width
    return config.teacher_width or WIDTHS.get(config.teacher, 0)
