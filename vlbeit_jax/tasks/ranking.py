"""Embeds a gallery of images and texts, scores all pairs, and re-ranks the best of them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.examples.paired import TextAlone, WholeImage
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.metrics.retrieval import Ranks, candidates, rank, rerank
from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.retrieval import DualEncoder
from vlbeit_jax.progress import counted
from vlbeit_jax.shapes import Array, Float, Int, Tree
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.tasks.predicting import outputs_of, rows_at_once
from vlbeit_jax.training.mesh import on_mesh, put_batch, replicated


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Images and texts that are searched.

    Attributes:
      images: records with an image.
      texts: records with ``id`` and ``text``.
      owner: the image of each text.
    """

    images: Records
    texts: Sequence[Mapping[str, str]]
    owner: Int[np.ndarray, " texts"]

    @classmethod
    def of(cls, records: Records, most: int | None = None) -> "Gallery":
        """Returns the gallery of all captions of some records.

        Args:
          records: with an image and captions.
          most: take the first so many records; None: all.
        """
        count = len(records) if most is None else min(most, len(records))
        texts, owner = [], []
        for index in range(count):
            record = records[index]
            for number, caption in enumerate(record["captions"]):
                texts.append({"id": f"{as_text(record['id'])}/{number}", "text": as_text(caption)})
                owner.append(index)
        return cls(_First(records, count), texts, np.array(owner, np.int64))

    def rank(self, scores: Float[np.ndarray, "images texts"]) -> Ranks:
        """Returns the ranks of the right answers in both directions."""
        return rank(scores, self.owner)


@dataclasses.dataclass(frozen=True)
class _First:
    """The first records of some."""

    records: Records
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.records[index]


@dataclasses.dataclass(frozen=True)
class _Embed:
    """Embeds one side of pairs; hashable, because it is compiled once."""

    network: DualEncoder
    name: str

    def __call__(self, params: Tree, batch: dict[str, Array]) -> Array:
        inputs = Inputs(**{self.name: batch[self.name]})
        vectors: Any = self.network.apply({"params": params}, inputs, method=f"embed_{self.name}")
        return vectors


@dataclasses.dataclass(frozen=True)
class _Match:
    """Logits of whether images and texts belong together; hashable, as above."""

    network: DualEncoder

    def __call__(self, params: Tree, batch: dict[str, Array]) -> Array:
        inputs = Inputs(image=batch["image"], text=batch["text"])
        logits: Any = self.network.apply({"params": params}, inputs, method="match")
        return logits


def embed(
    task: Any, tokenizer: TextTokenizer, params: Tree, gallery: Gallery, place: Place
) -> tuple[Float[np.ndarray, "images E"], Float[np.ndarray, "texts E"]]:
    """Returns unit vectors of all images and texts.

    Args:
      task: a ``tasks.retrieval.Retrieval``.
      tokenizer: of the texts.
      params: on the devices.
      gallery: what is embedded.
      place: devices.
    """
    image = embed_images(task, params, gallery.images, place)
    return image, embed_texts(task, tokenizer, params, gallery.texts, place)


def embed_images(
    task: Any, params: Tree, records: Records, place: Place
) -> Float[np.ndarray, "images E"]:
    """Returns unit vectors of the images of some records; see ``embed``."""
    whole, size = WholeImage(task.model.image_size), task.pair.batch_size
    return outputs_of(_Embed(task.network, "image"), params, records, whole, size, place).outputs


def embed_texts(
    task: Any,
    tokenizer: TextTokenizer,
    params: Tree,
    records: Sequence[Mapping[str, str]],
    place: Place,
) -> Float[np.ndarray, "texts E"]:
    """Returns unit vectors of the texts of records with ``id`` and ``text``; see ``embed``."""
    alone, size = TextAlone(tokenizer, task.pair.text_length), task.pair.batch_size
    return outputs_of(_Embed(task.network, "text"), params, records, alone, size, place).outputs


def dual_scores(
    image: Float[np.ndarray, "images E"], text: Float[np.ndarray, "texts E"]
) -> Float[np.ndarray, "images texts"]:
    """Returns the cosine of every image with every text, float32: bfloat16 would tie often."""
    return np.asarray(image, np.float32) @ np.asarray(text, np.float32).T


def rerank_both(
    task: Any,
    tokenizer: TextTokenizer,
    params: Tree,
    gallery: Gallery,
    scores: Float[np.ndarray, "images texts"],
    ranks: Ranks,
    place: Place,
) -> Ranks:
    """Returns ranks after the best candidates in both directions were ordered by matching.

    Each host keeps all images in memory as they enter the network: 2.2 GB for 5,000 at 384 pixels.

    Args:
      task: a ``tasks.retrieval.Retrieval`` with matching.
      tokenizer: of the texts.
      params: on the devices.
      gallery: what is searched.
      scores: by which candidates are chosen.
      ranks: by these scores.
      place: devices.
    """
    matched = _matched(task, tokenizer, params, gallery, place)
    count, texts = len(gallery.images), len(gallery.texts)
    own = gallery.owner == np.arange(count)[:, None]
    best_texts = candidates(scores, own, min(task.rerank, texts))
    of_images = np.broadcast_to(np.arange(count)[:, None], best_texts.shape)
    best_images = candidates(scores.T, own.T, min(task.rerank, count))
    of_texts = np.broadcast_to(np.arange(texts)[:, None], best_images.shape)
    return Ranks(
        rerank(
            ranks.of_texts,
            np.take_along_axis(own, best_texts, axis=1),
            matched(of_images, best_texts),
        ),
        rerank(
            ranks.of_images,
            np.take_along_axis(own.T, best_images, axis=1),
            matched(best_images, of_texts),
        ),
    )


def match_own(
    task: Any, tokenizer: TextTokenizer, params: Tree, gallery: Gallery, place: Place
) -> Float[np.ndarray, " texts"]:
    """Returns the probability that each text belongs to its image; see ``rerank_both``."""
    matched = _matched(task, tokenizer, params, gallery, place)
    texts = np.arange(len(gallery.texts))
    logits = matched(gallery.owner[:, None], texts[:, None])[:, 0].astype(np.float64)
    return 1 / (1 + np.exp(-logits))


def _matched(
    task: Any, tokenizer: TextTokenizer, params: Tree, gallery: Gallery, place: Place
) -> "_Matched":
    whole, draws = WholeImage(task.model.image_size), Draws("unused")
    count = len(gallery.images)
    each = counted(range(count), "reading", "images", count)
    images = np.stack([whole(gallery.images[index], draws)["image"] for index in each])
    length = task.pair.text_length
    texts = np.stack([tokenizer.encode_row(each["text"], length) for each in gallery.texts])
    return _Matched(_Match(task.network), params, images, texts, task.pair.batch_size, place)


@dataclasses.dataclass(frozen=True, eq=False)
class _Matched:
    """Scores pairs by the matching head."""

    outputs: _Match
    params: Tree
    images: np.ndarray
    texts: np.ndarray
    batch_size: int
    place: Place

    def __call__(
        self, images: Int[np.ndarray, "A k"], texts: Int[np.ndarray, "A k"]
    ) -> Float[np.ndarray, "A k"]:
        """Returns the logit of "yes" minus that of "no" for pairs of numbers.

        The last batch is filled up with its first pair, so that one program serves all.
        """
        image, text = images.reshape(-1), texts.reshape(-1)
        mesh = self.place.mesh
        size = rows_at_once(len(image), self.batch_size, mesh)
        rows, parts = np.asarray(self.place.shard.rows(size)), []
        with on_mesh(mesh):
            starts = range(0, len(image), size)
            for start in counted(starts, "matching", "pairs", len(image), size):
                pairs = np.arange(start, start + size)
                pairs = np.where(pairs < len(image), pairs, start)[rows]
                batch = {"image": self.images[image[pairs]], "text": self.texts[text[pairs]]}
                logits = _compiled(self.outputs, mesh)(self.params, put_batch(batch, mesh))
                parts.append(jax.device_get(logits))
        logits = np.concatenate(parts)[: len(image)].astype(np.float32)
        return (logits[:, 1] - logits[:, 0]).reshape(images.shape)


@functools.cache
def _compiled(outputs: _Match, mesh: Mesh) -> Any:
    return jax.jit(outputs, out_shardings=replicated(mesh))
