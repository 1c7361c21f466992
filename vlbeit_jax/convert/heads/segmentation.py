"""Segmentation: UPerNet's logits, and pictures cut into windows."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlbeit_jax.convert.heads.base import Head, Output
from vlbeit_jax.convert.permutations import CONVOLUTION, Permutation, one_to_one
from vlbeit_jax.convert.rules import Rule, rule
from vlbeit_jax.convert.tables import linear, norm
from vlbeit_jax.data.examples.images import pixels_of
from vlbeit_jax.data.examples.segmented import mask_of
from vlbeit_jax.data.records import Records
from vlbeit_jax.metrics import segmentation as scores
from vlbeit_jax.models.convolutions import BATCH
from vlbeit_jax.models.heads.upernet import AUXILIARY_TAP
from vlbeit_jax.models.segmenter import Segmenter
from vlbeit_jax.ops import windows
from vlbeit_jax.ops.windows import Size
from vlbeit_jax.tasks.open_segmentation import OpenSegmentation

LATERAL = 3  # Levels below the last one.
UPERNET, FCN = "head/upernet", "head/fcn"
# Kernel [row, column, I, O] of a transposed convolution to weight [I, O, row, column].
TRANSPOSED_CONVOLUTION = one_to_one(
    lambda x: x.transpose(2, 3, 0, 1), lambda x: x.transpose(2, 3, 0, 1)
)


def _rules(network: Segmenter) -> list[Rule]:
    upernet = network.upernet
    names = [f"pool_{bins}" for bins in upernet.pools]
    names += [f"lateral_{level}" for level in range(LATERAL)]
    names += [f"smooth_{level}" for level in range(LATERAL)]
    rules = [
        *_deconvolution("first"),
        *_norm(upernet.norm, f"{UPERNET}/pyramid/first_norm", "head.pyramid.first_norm"),
        *_deconvolution("first_again"),
        *_deconvolution("second"),
    ]
    for name in (*names, "pooled", "fuse"):
        rules += _conv(upernet.norm, f"{UPERNET}/{name}", f"head.{name}")
    rules += _linear(f"{UPERNET}/classes", "head.classes")
    if upernet.auxiliary:
        rules += _conv(upernet.norm, f"{FCN}/conv", "auxiliary.conv")
        rules += _linear(f"{FCN}/classes", "auxiliary.classes")
    return rules


def _conv(kind: str, jax: str, torch: str) -> list[Rule]:
    own = rule(f"{jax}/kernel", f"{torch}.conv.weight", CONVOLUTION)
    return [own, *_norm(kind, f"{jax}/norm", f"{torch}.norm")]


def _deconvolution(name: str) -> list[Rule]:
    jax, torch = f"{UPERNET}/pyramid/{name}", f"head.pyramid.{name}"
    return [
        rule(f"{jax}/kernel", f"{torch}.weight", TRANSPOSED_CONVOLUTION),
        rule(f"{jax}/bias", f"{torch}.bias"),
    ]


def _norm(kind: str, jax: str, torch: str) -> list[Rule]:
    rules = norm(jax, torch)
    if kind == BATCH:
        rules += [
            rule(f"{jax}/mean", f"{torch}.running_mean"),
            rule(f"{jax}/variance", f"{torch}.running_var"),
        ]
    return rules


def _linear(jax: str, torch: str) -> list[Rule]:
    """Returns the rules of a linear map that is a convolution of 1 x 1 elsewhere."""
    kernel, bias = linear(jax, torch)
    return [Rule(kernel.jax, kernel.torch, _ONE_BY_ONE), bias]


_ONE_BY_ONE: Permutation = one_to_one(lambda x: x.T[:, :, None, None], lambda x: x[:, :, 0, 0].T)


def _describe(opened: OpenSegmentation) -> dict[str, Any]:
    task = opened.task
    network = task.network
    return {
        "classes": list(task.class_names),
        "taps": list(network.taps),
        "width": network.upernet.width,
        "pools": list(network.upernet.pools),
        "norm": network.upernet.norm,
        "auxiliary": network.upernet.auxiliary,
        "auxiliary_tap": AUXILIARY_TAP,
        "inputs": {"side": opened.windows.side, "stride": opened.windows.stride},
    }


def _outputs(network: Segmenter) -> dict[str, Output]:
    return {"logits": Output("__call__", ("image",), is_map=True)}


def _examples(
    opened: OpenSegmentation, records: Records, results: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Returns windows as ``image``, and of each picture its size and its ``mask``.

    ``window`` has the picture's number and the top left corner of each window; ``resized`` and
    ``size`` the heights and widths of pictures before and after logits are resized. Masks follow
    each other, row by row.
    """
    images, window, resized, size, masks = [], [], [], [], []
    for number in range(len(records)):
        record = records[number]
        pixels, mask = pixels_of(record), mask_of(record)
        picture = Size(*pixels.shape[:2])
        images += opened.windows.cut(pixels)
        window += [(number, *corner) for corner in opened.windows.places(picture)]
        resized.append(opened.windows.size(picture))
        size.append(picture)
        masks.append(mask.ravel())
    return {
        "image": np.stack(images),
        "window": np.array(window, np.int32),
        "resized": np.array(resized, np.int32),
        "size": np.array(size, np.int32),
        "mask": np.concatenate(masks),
    }


HEAD = Head(
    "segmentation",
    _rules,
    _describe,
    _outputs,
    _examples,
    lambda network: "image-segmentation",
    "Giving each pixel of an image one of the classes that config.json lists.",
    {
        "segmentation_scores.py": pathlib.Path(scores.__file__),
        "segmentation_windows.py": pathlib.Path(windows.__file__),
    },
)
