"""Mixup, cutmix and random erasing, on the device.

As in timm, which BEiT and BEiT-3 train with: one choice and one share for the whole batch, and row
i is mixed with the row as far from the end. Mixup is arXiv 1710.09412, cutmix arXiv 1905.04899.
"""

import dataclasses

import jax
import jax.numpy as jnp

from vlbeit_jax.objectives.base import ROW, Tree
from vlbeit_jax.ops.patches import normalise
from vlbeit_jax.shapes import Array, Bool, Float, Int, UInt8

# Folded into the key of a step, beside the numbers of rows.
_MIXING, _ERASING = 2**31 - 1, 2**31 - 2
PARTNER = "partner_"


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How rows are mixed.

    Attributes:
      mixup: parameter of the Beta distribution of the share; 0: no mixup.
      cutmix: the same of the box; 0: no cutmix.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def prepare(self, batch: dict[str, Array], key: Array) -> dict[str, Array]:
        """Returns all rows with those of their partners, and what each row takes from both.

        ``mix_share`` is the part of the label that is the row's own. ``mix_pixels`` is that of the
        pixels outside ``mix_box``; inside, all pixels are the partner's.

        Args:
          batch: all rows.
          key: of the step.
        """
        size = batch["image"].shape[1]
        which, share, place = jax.random.split(jax.random.fold_in(key, _MIXING), 3)
        mixup_share = jax.random.beta(share, self.mixup, self.mixup) if self.mixup else 1.0
        box = jnp.zeros(4, jnp.int32)
        if self.cutmix:
            box = cutmix_box(jax.random.beta(share, self.cutmix, self.cutmix), place, size)
        cut = jnp.asarray(bool(self.cutmix))
        if self.mixup and self.cutmix:
            cut = jax.random.uniform(which) < 0.5
        cut_share = 1 - box[2] * box[3] / size**2
        rows = len(batch["weight"])
        partners = {
            PARTNER + name: batch[name][::-1]
            for name in ("image", "label", "erase", ROW)
            if name in batch
        }
        return {
            **batch,
            **partners,
            "mix_share": jnp.full(rows, jnp.where(cut, cut_share, mixup_share)),
            "mix_pixels": jnp.full(rows, jnp.where(cut, 1.0, mixup_share)),
            "mix_box": jnp.tile(jnp.where(cut, box, 0), (rows, 1)),
        }


def cutmix_box(share: Float[Array, ""], key: Array, size: int) -> Int[Array, "4"]:
    """Returns top, left, height and width of the box that takes about ``1 - share`` of an image.

    Its centre is uniform, and what lies outside the image is cut off.
    """
    half = (jnp.sqrt(1 - share) * size).astype(jnp.int32) // 2
    centre = jax.random.randint(key, (2,), 0, size)
    low, high = jnp.clip(centre - half, 0, size), jnp.clip(centre + half, 0, size)
    return jnp.concatenate([low, high - low])


def inside(box: Int[Array, "B 4"], size: int) -> Bool[Array, "B size size 1"]:
    """Returns which pixels of an image are in the box of its row."""

    def between(first: Int[Array, " B"], length: Int[Array, " B"]) -> Bool[Array, "B size"]:
        place = jnp.arange(size)
        return (place >= first[:, None]) & (place < (first + length)[:, None])

    rows, columns = between(box[:, 0], box[:, 2]), between(box[:, 1], box[:, 3])
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def erased(
    image: UInt8[Array, "B size size 3"], box: Int[Array, "B 4"], key: Array, rows: Int[Array, " B"]
) -> Float[Array, "B size size 3"]:
    """Returns normalised pixels, with standard normal noise in the box of each row.

    Args:
      image: pixels.
      box: top, left, height and width; of height 0: nothing is erased.
      key: of the step.
      rows: numbers of the rows, which alone decide their noise.
    """
    key = jax.random.fold_in(key, _ERASING)
    noise = jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row), image.shape[1:]))
    return jnp.where(inside(box, image.shape[1]), noise(rows), normalise(image))


def mixed(
    own: Float[Array, "B size size 3"], partner: Float[Array, "B size size 3"], batch: Tree
) -> Float[Array, "B size size 3"]:
    """Returns each row's pixels, mixed with its partner's as ``Mixing.prepare`` decided."""
    share = batch["mix_pixels"][:, None, None, None]
    blend = share * own + (1 - share) * partner
    return jnp.where(inside(batch["mix_box"], own.shape[1]), partner, blend)
