"""Pictures of coloured rectangles whose masks are easy to see, and configurations of seconds."""

import numpy as np

from tests import tiny
from tests.make_data import build
from tests.tasks.labelled_world import write
from vlbeit_jax.config.finetune import MasksConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.data.masks import indexed_png
from vlbeit_jax.tasks.segmentation import Segmentation
from vlbeit_jax.types import Kind

TRAINED, NEW, SIDE = 24, 16, 32
CLASSES = ("ground", "red", "blue")
COLOURS = np.array([(120, 120, 120), (230, 30, 30), (30, 40, 230)])
MODEL = {
    "image_size": SIDE,
    "patch_size": 4,
    "width": 16,
    "depth": 1,
    "heads": 2,
    "ffn_width": 32,
    "fused_layers": 0,
    "text_positions": 8,
    "vocabulary": 40,
    "drop_path": 0.0,
    "layer_scale": 0.0,
}
# Neither scale, nor crop, nor colours change.
PLAIN = {
    "batch_size": 8,
    "smallest_scale": 1.0,
    "largest_scale": 1.0,
    "one_class": 1.0,
    "flip": 0.0,
    "photometric": False,
    "view": "whole",
}


def drawing(rng, height, width):
    """A picture with a red or a blue rectangle or both, on the ground; and its mask."""
    mask = np.zeros((height, width), np.uint8)
    for number in rng.permutation([1, 2])[: rng.integers(1, 3)]:
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        mask[top : top + height // 2, left : left + width // 2] = number
    noise = rng.normal(size=(height, width, 3)) * 8
    return np.clip(COLOURS[mask] + noise, 0, 255).astype(np.uint8), mask


def lines(folder, seed=0, permute=False, size=(SIDE, SIDE)):
    """Training records and new ones. ``permute`` gives training records the masks of others."""
    rng, found, masks = np.random.default_rng(seed), [], []
    for number in range(TRAINED + NEW):
        image, mask = drawing(rng, *size)
        split = "train" if number < TRAINED else "test"
        split = "validation" if TRAINED <= number < TRAINED + 4 else split
        name = f"{seed}_{number}"
        (folder / f"{name}.png").write_bytes(tiny.png(image))
        masks.append(mask)
        found.append(
            {"id": name, "image": f"{name}.png", "mask": f"{name}_mask.png", "split": split}
        )
    if permute:
        order = rng.permutation(TRAINED)
        masks[:TRAINED] = [masks[index] for index in order]
    for line, mask in zip(found, masks, strict=True):
        (folder / line["mask"]).write_bytes(indexed_png(mask))
    return found


def prepare(folder, **made):
    folder.mkdir(exist_ok=True)
    path = write(folder / "masks.jsonl", lines(folder, **made))
    names = folder / "names.txt"
    names.write_text("\n".join(CLASSES))
    build(folder / "masks", Kind.MASKS, [path], source_format="jsonl", classes=str(names))
    return folder / "masks"


def segmentation_task(sources, image=None, **task):
    return Segmentation(
        model=ModelConfig(**MODEL),
        image=MasksConfig(sources=(str(sources),), **PLAIN | (image or {})),
        **{"pools": (2,), "head_width": 32, "dropout": 0.0} | task,
    )
