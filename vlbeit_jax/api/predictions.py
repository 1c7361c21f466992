"""Predicts with a fine-tuned model: classes, answers, truth, captions, masks, search."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from vlbeit_jax.api.base import Opened, Predictor, checked_top, words_of
from vlbeit_jax.api.pictures import listed, pixels_of, views
from vlbeit_jax.api.retriever import Embedded, Retriever
from vlbeit_jax.data.class_names import PLACE, ClassTexts
from vlbeit_jax.errors import UsageError
from vlbeit_jax.shapes import Float, UInt8
from vlbeit_jax.tasks.open_fine_tuned import best_of
from vlbeit_jax.tasks.zero_shot import mean_directions


class Segmented(NamedTuple):
    """The class of each pixel of an image.

    Attributes:
      mask: numbers of classes.
      classes: their names, by number.
    """

    mask: UInt8[np.ndarray, "height width"]
    classes: tuple[str, ...]


class Predicts(Opened):
    """Does what a model was fine-tuned for."""

    def classify(
        self,
        inputs: Any,
        *,
        classes: Any = None,
        templates: Any = PLACE,
        top: int = 5,
    ) -> list[list[tuple[str, float]]]:
        """Returns the likeliest classes of each image or text, with their probabilities.

        A model that was fine-tuned for retrieval takes any ``classes`` by their names (zero-shot,
        images only), and gives cosines instead of probabilities.

        Args:
          inputs: images or texts, as the model was fine-tuned for.
          classes: names of classes, for a model of retrieval.
          templates: texts in which "{}" stands for the name; a class is the mean of them.
          top: classes to list.

        Raises:
          UsageError: the model was fine-tuned for neither classification nor, with ``classes``,
            retrieval.
        """
        if classes is not None:
            return self._by_names(inputs, classes, templates, checked_top(top))
        predictor = self._predictor_for("classify")
        if "image" in predictor.needs:
            rows = [{"image": _png(each)} for each in listed(inputs, "inputs")]
        else:
            rows = [{"text": words_of(each)} for each in listed(inputs, "inputs")]
        return [prediction["top"] for prediction in _predicted(predictor, rows, top)]

    def answer(self, images: Any, questions: Any, *, top: int = 5) -> list[list[tuple[str, float]]]:
        """Returns the likeliest answers to each question about its image, with probabilities.

        Answers do not exclude each other, so their probabilities need not add up to 1.

        Args:
          images: one for each question, or one for all.
          questions: strings.
          top: answers to list.

        Raises:
          UsageError: the model was not fine-tuned for question answering.
        """
        predictor = self._predictor_for("answer")
        texts, pictures = listed(questions, "questions"), listed(images, "images")
        if len(pictures) == 1:
            pictures = pictures * len(texts)
        if len(pictures) != len(texts):
            raise UsageError(
                f"{len(pictures)} images and {len(texts)} questions: give one image for each "
                "question, or one for all"
            )
        rows = [
            {"image": _png(picture), "text": words_of(text)}
            for picture, text in zip(pictures, texts, strict=True)
        ]
        return [prediction["top"] for prediction in _predicted(predictor, rows, top)]

    def judge(self, images: Any, statements: Any) -> list[float]:
        """Returns the probability that each statement is true of its two images.

        Args:
          images: two for each statement, the first one on the left; or two for all of them.
          statements: strings.

        Raises:
          UsageError: the model was not fine-tuned for visual reasoning.
        """
        predictor = self._predictor_for("judge")
        texts, pairs = listed(statements, "statements"), listed(images, "images")
        if len(pairs) == 2 and not _is_pair(pairs[0]):
            pairs = [pairs] * len(texts)
        if len(pairs) != len(texts) or not all(_is_pair(pair) for pair in pairs):
            raise UsageError(
                f"{len(texts)} statements: give two images for each, such as [(a, b), (c, d)], or "
                "two for all, such as (a, b)"
            )
        rows = [
            {"image": _png(first), "second_image": _png(second), "text": words_of(text)}
            for (first, second), text in zip(pairs, texts, strict=True)
        ]
        return [
            dict(prediction["top"])["true"] for prediction in _predicted(predictor, rows, top=2)
        ]

    def caption(self, images: Any) -> list[str]:
        """Returns a caption of each image, as the settings of the run search for it.

        Args:
          images: as in ``encode``.

        Raises:
          UsageError: the model was not fine-tuned for captioning.
        """
        predictor = self._predictor_for("caption")
        rows = [{"image": _png(each)} for each in listed(images, "images")]
        return [prediction["caption"] for prediction in _predicted(predictor, rows, 1)]

    def segment(self, images: Any) -> list[Segmented]:
        """Returns the class of each pixel of each image, at the image's own size.

        Args:
          images: as in ``encode``.

        Raises:
          UsageError: the model was not fine-tuned for segmentation.
        """
        predictor = self._predictor_for("segment")
        rows = [{"image": _png(each)} for each in listed(images, "images")]
        predictions = _predicted(predictor, rows, len(predictor.classes))
        return [Segmented(each["mask"], predictor.classes) for each in predictions]

    def embed(self, images: Any = None, texts: Any = None) -> Embedded:
        """Returns unit vectors of images and texts in one space, for an index of your own.

        Args:
          images: as in ``encode``.
          texts: as in ``encode``.

        Raises:
          UsageError: the model was not fine-tuned for retrieval, or there are neither.
        """
        retriever = self._retriever("embed")
        if images is None and texts is None:
            raise UsageError("embed needs images=..., texts=..., or both")
        image = None if images is None else self._image_vectors(retriever, images)
        text = None if texts is None else self._text_vectors(retriever, texts)
        return Embedded(image, text)

    def search(self, texts: Any, images: Any, *, top: int = 5) -> list[list[tuple[int, float]]]:
        """Returns the images that fit each text best: their numbers, with the cosine of both.

        Args:
          texts: what is searched for; as in ``encode``.
          images: to search in, as in ``encode``; or ``embed(images=...).image``, to embed them only
            once for many searches.
          top: images to list.

        Raises:
          UsageError: the model was not fine-tuned for retrieval, or the vectors are not its own.
        """
        top, retriever = checked_top(top), self._retriever("search")
        wanted = self._text_vectors(retriever, texts)
        is_vectors = isinstance(images, np.ndarray) and images.ndim == 2
        vectors = images if is_vectors else self._image_vectors(retriever, images)
        if vectors.shape[1] != wanted.shape[1]:
            raise UsageError(
                f"images has vectors of {vectors.shape[1]} numbers, but those of this model have "
                f"{wanted.shape[1]}: give images, or what embed(images=...) of this model returns"
            )
        cosines = wanted @ vectors.T
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :top]
        return [
            [(int(number), float(row[number])) for number in numbers]
            for row, numbers in zip(cosines, best, strict=True)
        ]

    def _image_vectors(self, retriever: Retriever, images: Any) -> Float[np.ndarray, "B E"]:
        pixels = views(listed(images, "images"), self.config.image_size, "squash")
        return retriever.image(self._params, pixels)

    def _text_vectors(self, retriever: Retriever, texts: Any) -> Float[np.ndarray, "A E"]:
        rows = self._rows(listed(texts, "texts"), retriever.text_length)
        return retriever.text(self._params, rows)

    def _by_names(
        self, inputs: Any, classes: Any, templates: Any, top: int
    ) -> list[list[tuple[str, float]]]:
        retriever = self._retriever("classify with classes=...")
        forms = tuple(listed(templates, "templates"))
        if lost := [each for each in forms if not isinstance(each, str) or PLACE not in each]:
            raise UsageError(f"the template {lost[0]!r} has no {PLACE} for the name of the class")
        named = ClassTexts(tuple(words_of(each) for each in listed(classes, "classes")), forms)
        if twice := [name for name in named.names if named.names.count(name) > 1]:
            raise UsageError(f"the class {twice[0]!r} is there twice; name it once")
        texts = self._text_vectors(retriever, named.texts)
        cosines = self._image_vectors(retriever, inputs) @ mean_directions(texts, named).T
        return [best_of(named.names, row, top) for row in cosines]

    def _retriever(self, asked: str) -> Retriever:
        retriever = self._predictor_for("search", asked).retriever
        assert retriever is not None, "a model that searches embeds"
        return retriever


def _is_pair(given: Any) -> bool:
    """Returns whether this is two images, and not one: an array of pixels has a length too."""
    return isinstance(given, list | tuple) and len(given) == 2


def _png(picture: Any) -> bytes:
    """Returns a picture as the bytes of a PNG, which keeps every pixel."""
    return cv2.imencode(".png", pixels_of(picture)[..., ::-1])[1].tobytes()


def _predicted(
    predictor: Predictor, rows: Sequence[Mapping[str, Any]], top: int
) -> list[dict[str, Any]]:
    top = checked_top(top)
    if not rows:
        raise UsageError("an empty list: give at least one")
    records: Any = [{"id": str(number), **row} for number, row in enumerate(rows)]
    return predictor.predict(records, top)
