"""What the shapes of a file do not say: the command's flags, and how they meet with what the file does say."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from vlbeit_jax.config import ModelConfig
from vlbeit_jax.convert.rules import Shape
from vlbeit_jax.errors import UsageError

HEAD_WIDTH = 64  # In every BEiT-3, VQ-KD, CLIP and DINO that was published.


@dataclasses.dataclass(frozen=True)
class Unsaid:
    """Flags of the command by name; None: not given."""

    image_size: int | None = None
    codes: int | None = None
    vocabulary: int | None = None
    text_positions: int | None = None
    heads: int | None = None

    def model(self, **said: Any) -> ModelConfig:
        """A model out of the flags and what the file says; what neither says is as in ``ModelConfig``."""
        given = {
            name: value for name, value in dataclasses.asdict(self).items() if value is not None
        }
        return ModelConfig(**given | said)

    def agreed(self, name: str, found: int) -> int:
        """What the file says of ``name``.

        Raises:
          UsageError: the flag says something else.
        """
        given = getattr(self, name)
        if given not in (None, found):
            raise UsageError(
                f"--{name}={given}: the file is of {name} {found}; leave --{name} out, or give the file that you mean"
            )
        return found

    def heads_of(self, width: int) -> int:
        """Heads of a network of which the file says the width alone.

        Raises:
          UsageError: the width does not go into heads of 64, or into as many as the flag says.
        """
        if self.heads is None and width % HEAD_WIDTH:
            raise UsageError(
                f"the file's width, {width}, is no multiple of a head's {HEAD_WIDTH}; give their number: --heads"
            )
        return whole_heads(width, self.heads or width // HEAD_WIDTH)


def whole_heads(width: int, heads: int) -> int:
    """The heads; raises a ``UsageError`` unless they share the width evenly."""
    if not heads or width % heads:
        raise UsageError(
            f"{heads} heads do not share the file's width, {width}, evenly; is --heads right, or the file another program's?"
        )
    return heads


def grid_of(image_size: int, patch_size: int) -> int:
    """Patches along one side; raises a ``UsageError`` if a part of one is left."""
    if image_size % patch_size:
        raise UsageError(
            f"--image_size={image_size} is no multiple of the patch size, {patch_size}"
        )
    return image_size // patch_size


def root(square: int) -> int | None:
    """The whole number that was squared, None if there is none."""
    found = math.isqrt(max(square, 0))
    return found if found * found == square else None


def required(kind: str, theirs: Mapping[str, Shape], axes: Mapping[str, int]) -> list[Shape]:
    """Shapes of the tensors by which a format is known, of so many axes each.

    Raises:
      UsageError: one is missing or has another number of axes; all of them are listed.
    """
    missing = [name for name in axes if name not in theirs]
    if missing:
        raise UsageError(f"no {kind}: {', '.join(missing)} missing")
    other = [
        f"{name} is {list(theirs[name])}"
        for name, count in axes.items()
        if len(theirs[name]) != count
    ]
    if other:
        raise UsageError(f"no {kind}: {', '.join(other)}")
    return [theirs[name] for name in axes]
