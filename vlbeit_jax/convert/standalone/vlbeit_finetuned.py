"""Fine-tuned VL-BEiT models in PyTorch: the backbone of ``vlbeit_torch.py`` with a head.

    from vlbeit_finetuned import load, normalise

    model = load(".")  # The folder with this file, the weights and config.json.
    # The class or answer of each logit, the view of an image and the length of a text.
    model.network["classes"], model.network["inputs"]

    # Classification of images or of texts: logits [B, classes].
    model(image=normalise(pixels))
    # Question answering: logits [B, answers].
    model(image=normalise(pixels), text=pieces)
    # Visual reasoning: logits of false and true [B, 2].
    model(image=normalise(pixels), second_image=normalise(second_pixels), text=pieces)
    # Retrieval: unit vectors [B, E], their scaled cosines, and logits of "no" and "yes" [B, 2].
    image, text = model.embed_image(normalise(pixels)), model.embed_text(pieces)
    model.similarity(image, text)
    model.match(normalise(pixels), pieces)
    # Captioning: word pieces [B, T] of a caption of each image, CLS first.
    model.caption(normalise(pixels))
    # Segmentation: the class of each pixel [B, height, width].
    model.segment(normalise(pixels))

``pixels`` are uint8 [B, 3, height, width]; ``pieces`` are int64 [B, T]. This file needs the other
``vlbeit_*.py`` beside it, torch, and safetensors to read weights.

Dimension letters: B batch, T word pieces, L tokens of a modality, D width, E length of a vector.
"""

import math
import pathlib
from collections import OrderedDict
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from vlbeit_captions import Writes
from vlbeit_segments import Segmenter
from vlbeit_torch import (
    LANGUAGE,
    VISION,
    Backbone,
    check_files,
    fill,
    mean_of_words,
    normalise,
    read_export,
)

__all__ = [
    "VQA",
    "Captioner",
    "Classifier",
    "DualEncoder",
    "Reasoner",
    "Segmenter",
    "check_files",
    "load",
    "normalise",
]


class FineTuned(Backbone):
    """A backbone, to which each class below adds its head.

    Attributes:
      network: "network" in config.json.
    """

    def __init__(self, config: dict, network: dict, final_norm: bool):
        super().__init__(config, network["modalities"], network["experts"], final_norm)
        self.network = network

    @classmethod
    def open(cls, folder: pathlib.Path) -> Self:
        """Loads a model of this class; see ``load``."""
        model: Any = load(folder)
        if not isinstance(model, cls):
            raise ValueError(f"{folder} holds a {type(model).__name__}, not a {cls.__name__}")
        return model


class Classifier(FineTuned):
    """Classifies images or texts (BEiT): pooled states before the last norm, norm, linear map."""

    def __init__(self, config: dict, network: dict):
        super().__init__(config, network, final_norm=False)
        width = config["width"]
        self.modality, self.pool = network["modality"], network["pool"]
        parts = {
            "norm": nn.LayerNorm(width, eps=network["norm_eps"]),
            "out": nn.Linear(width, len(network["classes"])),
        }
        self.head = nn.Sequential(OrderedDict(parts))

    def forward(self, image: Tensor | None = None, text: Tensor | None = None) -> Tensor:
        """Returns logits [B, classes] of images or of texts; the arguments are those of ``VLBEiT``.

        Raises:
          ValueError: an input is missing or has a size that the model does not support.
        """
        states = self.encode(image, text)[0][self.modality]
        return self.head(self._pooled(states, text))

    def _pooled(self, states: Tensor, text: Tensor | None) -> Tensor:
        """Pools [B, L, D] to [B, D]: CLS's state, or the mean of the others without padding."""
        if self.pool == "cls":
            return states[:, 0]
        if text is None:
            return states[:, 1:].mean(dim=1)
        return mean_of_words(states[:, 1:], text[:, 1:] != self.pad)


class VQA(FineTuned):
    """Answers questions about images, from the state of the image's CLS (BEiT-3)."""

    def __init__(self, config: dict, network: dict):
        super().__init__(config, network, final_norm=False)
        width, eps = config["width"], network["norm_eps"]
        pooler = {
            "norm": nn.LayerNorm(width, eps=eps),
            "dense": nn.Linear(width, width),
            "tanh": nn.Tanh(),
        }
        head = {
            "hidden": nn.Linear(width, 2 * width),
            "norm": nn.LayerNorm(2 * width, eps=eps),
            "gelu": nn.GELU(),
            "answers": nn.Linear(2 * width, len(network["answers"])),
        }
        self.pooler = nn.Sequential(OrderedDict(pooler))
        self.head = nn.Sequential(OrderedDict(head))

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Returns logits [B, answers]; arguments and errors are those of ``VLBEiT``."""
        states, _ = self.encode(image, text)
        return self.head(self.pooler(states[VISION][:, 0]))


class Reasoner(FineTuned):
    """Judges whether a statement is true of two images, from the states of four CLS (BEiT-3).

    The second image has an embedding of its modality of its own, as in VLMo.
    """

    def __init__(self, config: dict, network: dict):
        super().__init__(config, network, final_norm=True)
        width, eps = config["width"], network["norm_eps"]
        self.second_modality = nn.Parameter(torch.zeros(width))
        head = {
            "first_norm": nn.LayerNorm(4 * width, eps=eps),
            "hidden": nn.Linear(4 * width, 2 * width),
            "norm": nn.LayerNorm(2 * width, eps=eps),
            "gelu": nn.GELU(),
            "truth": nn.Linear(2 * width, 2),
        }
        self.head = nn.Sequential(OrderedDict(head))

    def forward(self, image: Tensor, second_image: Tensor, text: Tensor) -> Tensor:
        """Returns logits [B, 2] of false and true; the arguments are those of ``VLBEiT``.

        Raises:
          ValueError: an input has a size that the model does not support.
        """
        assert self.vision_embed is not None and self.vision_embed.modality is not None
        states = [
            self.encode(each, text, modality=modality.expand(text.shape[0], 1, -1))[0]
            for each, modality in (
                (image, self.vision_embed.modality),
                (second_image, self.second_modality),
            )
        ]
        four = [each[modality][:, 0] for each in states for modality in (VISION, LANGUAGE)]
        return self.head(torch.cat(four, dim=-1))


class DualEncoder(FineTuned):
    """Embeds images and texts as unit vectors in one space; may also have a head for pairs."""

    def __init__(self, config: dict, network: dict):
        super().__init__(config, network, final_norm=True)
        width, features = config["width"], network["features"]
        self.image_projection = nn.Linear(width, features, bias=False)
        self.text_projection = nn.Linear(width, features, bias=False)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.match_head = nn.Linear(2 * width, 2) if network["matching"] else None

    def embed_image(self, image: Tensor) -> Tensor:
        """Returns unit vectors [B, E] of images."""
        state = self.encode(image)[0][VISION][:, 0]
        return functional.normalize(self.image_projection(state), dim=-1, eps=1e-6)

    def embed_text(self, text: Tensor) -> Tensor:
        """Returns unit vectors [B, E] of texts."""
        state = self.encode(text=text)[0][LANGUAGE][:, 0]
        return functional.normalize(self.text_projection(state), dim=-1, eps=1e-6)

    def similarity(self, image: Tensor, text: Tensor) -> Tensor:
        """Returns [images, texts]: cosines of unit vectors times the scale learned in training.

        The contrastive loss takes the softmax of these values over texts, and over images.
        """
        limit = math.log(self.network["max_scale"]) if self.network["max_scale"] else math.inf
        return self.logit_scale.clamp(max=limit).exp() * image @ text.T

    def match(self, image: Tensor, text: Tensor) -> Tensor:
        """Returns logits [B, 2]: that each image does not belong to its text, and that it does.

        Raises:
          ValueError: the model was trained without a head for pairs.
        """
        if self.match_head is None:
            raise ValueError("this model was trained without matching; compare its vectors")
        states, _ = self.encode(image, text)
        return self.match_head(torch.cat([states[VISION][:, 0], states[LANGUAGE][:, 0]], dim=-1))


class Captioner(Writes, FineTuned):
    """Writes captions of images, by the head of word pieces (BEiT-3)."""

    def __init__(self, config: dict, network: dict):
        super().__init__(config, network, final_norm=True)
        self.language_head = nn.Linear(config["width"], config["vocabulary"])

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Returns logits [B, T, vocabulary] of the piece at each position.

        The piece at a position with MASK is predicted from the image and the pieces before. The
        arguments are those of ``VLBEiT``.
        """
        return self.language_head(self.encode(image, text)[0][LANGUAGE])


NETWORKS: dict[str, Any] = {  # By kind.
    "classification": Classifier,
    "vqa": VQA,
    "visual_reasoning": Reasoner,
    "retrieval": DualEncoder,
    "captioning": Captioner,
    "segmentation": Segmenter,
}


def load(folder: str | pathlib.Path) -> Any:
    """Loads a model in evaluation mode.

    Raises:
      ValueError: a file is missing or has changed since it was exported, the folder holds no
        fine-tuned model, or the weights do not fit config.json.
    """
    folder = pathlib.Path(folder)
    config, tensors = read_export(folder)
    if "network" not in config:
        raise ValueError(f"{folder} holds a pretrained model; load it with vlbeit_torch.load")
    model = NETWORKS[config["network"]["kind"]](config["model"], config["network"])
    fill(model, tensors, folder)
    model.folder, model.exported = folder, config
    return model
