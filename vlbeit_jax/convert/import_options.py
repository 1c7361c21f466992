"""What a file's shapes do not tell: the command's flags, and checks against what the file tells."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert.rules import Shape
from vlbeit_jax.errors import UsageError

HEAD_WIDTH = 64  # Of every published BEiT-3, VQ-KD, CLIP and DINO.
# Options that are fields of ``ModelConfig``. The others are of one format, or of a head.
OF_MODEL = ("image_size", "codes", "vocabulary", "text_positions", "heads")


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """The command's flags by name; None: not given."""

    image_size: int | None = None
    codes: int | None = None
    vocabulary: int | None = None
    text_positions: int | None = None
    heads: int | None = None
    activation: str | None = None
    classes: str | None = None
    answers: str | None = None
    text_tokenizer: str | None = None

    def model_config(self, **read: Any) -> ModelConfig:
        """Builds a model from what was read off the file and, failing that, from the flags.

        Fields that neither tells have the defaults of ``ModelConfig``.
        """
        given = {name: getattr(self, name) for name in OF_MODEL if getattr(self, name) is not None}
        return ModelConfig(**given | read)

    def agree(self, name: str, value: int) -> int:
        """Returns what the file tells of ``name``.

        Raises:
          UsageError: the flag says something else.
        """
        flag = getattr(self, name)
        if flag not in (None, value):
            raise UsageError(
                f"--{name}={flag}, but the file has {name}={value}. Leave --{name} out, or give "
                "another file"
            )
        return value

    def count_heads(self, width: int) -> int:
        """Returns the attention heads of a network of which the file tells only the width.

        Raises:
          UsageError: the width is not a multiple of 64, or of the number that the flag gives.
        """
        if self.heads is None and width % HEAD_WIDTH:
            raise UsageError(
                f"the file's width, {width}, is not a multiple of {HEAD_WIDTH}, a head's usual "
                "width; give the number of heads: --heads"
            )
        return check_heads(width, self.heads or width // HEAD_WIDTH)


def check_heads(width: int, heads: int) -> int:
    """Returns ``heads``; raises a ``UsageError`` unless they divide the width."""
    if not heads or width % heads:
        raise UsageError(
            f"{heads} heads do not divide the file's width, {width}. Check --heads, and whether "
            "the file is of this format"
        )
    return heads


def grid_of(image_size: int, patch_size: int) -> int:
    """Returns patches per side; raises a ``UsageError`` if the image is not whole patches."""
    if image_size % patch_size:
        raise UsageError(
            f"--image_size={image_size} is not a multiple of the patch size, {patch_size}"
        )
    return image_size // patch_size


def exact_sqrt(square: int) -> int | None:
    """Returns the whole square root; None if there is none."""
    root = math.isqrt(max(square, 0))
    return root if root * root == square else None


def count_matches(names: Iterable[str], pattern: str) -> int:
    """Counts the names that match a regular expression as a whole, e.g. one name per block."""
    return sum(re.fullmatch(pattern, name) is not None for name in names)


def match_reasons(names: Iterable[str], reasons: Mapping[str, str]) -> dict[str, str]:
    """Returns a reason for every name that matches one of the regular expressions."""
    return {
        name: reason
        for name in names
        for pattern, reason in reasons.items()
        if re.fullmatch(pattern, name)
    }


def require_shapes(kind: str, shapes: Mapping[str, Shape], ranks: Mapping[str, int]) -> list[Shape]:
    """Returns the shapes of the tensors by which a format is recognised.

    Args:
      kind: of file, for the message.
      shapes: of all tensors of the file.
      ranks: number of axes by name of a tensor that the format must have.

    Raises:
      UsageError: a tensor is missing or has another number of axes; all are listed.
    """
    missing = [name for name in ranks if name not in shapes]
    if missing:
        raise UsageError(f"not a {kind}: {', '.join(missing)} missing")
    wrong = [
        f"{name} is {list(shapes[name])}"
        for name, rank in ranks.items()
        if len(shapes[name]) != rank
    ]
    if wrong:
        raise UsageError(f"not a {kind}: {', '.join(wrong)}")
    return [shapes[name] for name in ranks]
