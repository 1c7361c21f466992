"""Small files under the names of other programs: starts, visual tokenizers, and teachers."""

import dataclasses
import pathlib

import numpy as np
import torch

from tests.convert import test_beit, test_beit3, test_teachers, test_vlmo, test_vqkd
from tests.convert.named import randomised
from tests.convert.published_dalle import SMALL, published

CODES = test_beit.CODES


def beit3():
    """A pretrained file: both heads, and none of fine-tuning."""
    shapes = test_beit3.published_shapes()
    kept = {name: shape for name, shape in shapes.items() if name not in test_beit3.HEADS_THERE}
    words, width = shapes["beit3.text_embed.weight"]
    return randomised(kept | {"mlm_head.weight": (words, width), "mlm_head.bias": (words,)})


def clip(quick, features):
    tensors = test_teachers.clip_names(test_teachers.clip_network(quick))
    tensors["visual.proj"] = tensors["visual.proj"][:, :features]
    return {name: value.numpy() for name, value in tensors.items()}


FILES = {
    "beit": lambda: test_beit.published(False),
    "beit2": lambda: test_beit.published(False),
    "vlmo": lambda: randomised(test_vlmo.published_shapes()),
    "beit3": beit3,
    "vqkd": lambda: test_vqkd.published_tensors(dataclasses.replace(test_vqkd.CONFIG, codes=CODES)),
    "dalle": lambda: published(dataclasses.replace(SMALL, codes=CODES)),
    "quick_gelu": lambda: clip(True, 512),
    "gelu": lambda: clip(False, 384),
}


def write(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Writes the file of this name as PyTorch's; returns its path."""
    path = folder / f"{name}.pth"
    torch.save({key: torch.tensor(np.asarray(value)) for key, value in FILES[name]().items()}, path)
    return path
