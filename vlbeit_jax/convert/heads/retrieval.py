"""Retrieval: unit vectors of images and texts, and matching of pairs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlbeit_jax.convert.heads.base import Head, Output, text_rows
from vlbeit_jax.convert.permutations import TRANSPOSED
from vlbeit_jax.convert.rules import Rule, rule
from vlbeit_jax.convert.tables import linear
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.paired import WholeImage
from vlbeit_jax.data.records import Records
from vlbeit_jax.models.retrieval import DualEncoder
from vlbeit_jax.tasks.open_retrieval import OpenRetrieval
from vlbeit_jax.tasks.ranking import Gallery


def _rules(network: DualEncoder) -> list[Rule]:
    return [
        rule("head/image/kernel", "image_projection.weight", TRANSPOSED),
        rule("head/text/kernel", "text_projection.weight", TRANSPOSED),
        rule("head/logit_scale", "logit_scale"),
        *(linear("head/match", "match_head") if network.matching else []),
    ]


def _describe(opened: OpenRetrieval) -> dict[str, Any]:
    task = opened.task
    return {
        "features": task.network.features,
        "matching": task.matching,
        "max_scale": task.max_scale,
        "rerank": task.rerank if task.reranks else 0,
        "inputs": {"view": "squash", "text_length": task.pair.text_length},
    }


def _outputs(network: DualEncoder) -> dict[str, Output]:
    outputs = {
        "image_vector": Output("embed_image", ("image",)),
        "text_vector": Output("embed_text", ("text",)),
    }
    return outputs | ({"match": Output("match", ("image", "text"))} if network.matching else {})


def _examples(
    opened: OpenRetrieval, records: Records, results: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Returns each record's ``image``, each caption's ``text`` and its image's number ``owner``."""
    gallery = Gallery.of(records)
    whole, draws = WholeImage(opened.task.model.image_size), Draws("unused")
    images = gallery.images
    texts = [each["text"] for each in gallery.texts]
    return {
        "image": np.stack([whole(images[index], draws)["image"] for index in range(len(images))]),
        "text": text_rows(opened.text, texts, opened.task.pair.text_length),
        "owner": gallery.owner.astype(np.int32),
    }


HEAD = Head(
    "retrieval",
    _rules,
    _describe,
    _outputs,
    _examples,
    lambda network: "zero-shot-image-classification",
    "Finding the images that fit a text, and the texts that fit an image: both become unit vectors "
    "in one space, whose product tells how well they fit.",
)
