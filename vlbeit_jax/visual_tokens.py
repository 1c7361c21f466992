"""Command: the visual tokens of images."""

import json
import pathlib

import numpy as np
from absl import flags
from PIL import Image, ImageOps

from vlbeit_jax import cli
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import fetched, place

OVERVIEW = """Prints the visual tokens of images, row by row.

  python -m vlbeit_jax.visual_tokens --from=VQKD --image=cat.jpg --resize=256
  python -m vlbeit_jax.visual_tokens --from=VQKD --image=cat.jpg --resize=256 --expect=ids.json

Images are prepared as in BEiT v2's published example: the shorter side is resized to --resize
(bicubic), then the centre is cropped. --expect names a JSON list of another program's tokens: the
command prints how many agree and exits with code 1 if fewer than 99.9% do."""

FROM = flags.DEFINE_string(
    "from", None, "workdir of a finished VQ-KD run, or folder of an import", required=True
)
IMAGE = flags.DEFINE_multi_string("image", None, "image file; may be repeated", required=True)
RESIZE = flags.DEFINE_integer(
    "resize",
    0,
    "shorter side in pixels, before the centre is cut out; 0: the visual tokenizer's own size",
    lower_bound=0,
)
EXPECT = flags.DEFINE_string(
    "expect", "", "JSON file with the expected visual tokens of all images, in order"
)
ENOUGH = 0.999


def main() -> None:
    """Encodes and prints."""
    expected = _expected() if EXPECT.value else None
    import jax.numpy as jnp

    from vlbeit_jax.models.visual_tokenizer import encode
    from vlbeit_jax.tasks.visual_tokens import open_visual_tokens

    visual = open_visual_tokens(FROM.value, "--from")
    size = visual.tokenizer.config.image_size
    if RESIZE.value and RESIZE.value < size:
        raise UsageError(
            f"--resize={RESIZE.value} is smaller than the tokenizer's images, {size} pixels"
        )
    images = np.stack(
        [
            _prepared(fetched(place(given, "--image")), RESIZE.value or size, size)
            for given in IMAGE.value
        ]
    )
    codes = encode(visual.tokenizer, visual.frozen, jnp.asarray(images))
    tokens = np.asarray(codes).ravel()
    print(json.dumps(tokens.tolist()))
    if expected is not None:
        if expected.shape != tokens.shape:
            raise UsageError(
                f"--expect={EXPECT.value} holds {expected.size} tokens, "
                f"these images have {tokens.size}"
            )
        share = float((expected == tokens).mean())
        print(f"{share:.2%} of {tokens.size} tokens agree")
        if share < ENOUGH:
            raise SystemExit(1)


def _expected() -> np.ndarray:
    try:
        return np.array(json.loads(place(EXPECT.value, "--expect").read_text()), np.int64).ravel()
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"--expect={EXPECT.value}: no JSON list of integers ({error})") from error


def _prepared(path: pathlib.Path, shorter: int, size: int) -> np.ndarray:
    try:
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"--image={path}: cannot be read ({error})") from error
    scale = shorter / min(image.size)
    width, height = (max(shorter, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
