"""Fine-tuned VL-BEiT models in PyTorch: the backbone of ``vlbeit_torch.py`` with a head.

    from vlbeit_finetuned import load, normalise

    # "." is the folder with this file, the weights and config.json.
    model = load(".")
    # The class or answer of each logit, the view of an image and the length of a text.
    model.network["classes"], model.network["inputs"]

    # Classification of images or of texts: logits [B, classes].
    model(image=normalise(pixels))
    # Question answering: logits [B, answers].
    model(image=normalise(pixels), text=pieces)
    # Retrieval: unit vectors [B, E], their scaled cosines, and logits of "no" and "yes" [B, 2].
    image, text = model.embed_image(normalise(pixels)), model.embed_text(pieces)
    model.similarity(image, text)
    model.match(normalise(pixels), pieces)
    # Captioning: word pieces [B, T] of a caption of each image, CLS first.
    model.caption(normalise(pixels))

``pixels`` are uint8 [B, 3, height, width]; ``pieces`` are int64 [B, T]. This file needs
``vlbeit_torch.py`` beside it, torch, and safetensors to read the weights.

Dimension letters: B batch, T word pieces, L tokens of a modality, D width, E length of a vector.
"""

import math
import pathlib
from collections import OrderedDict
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from vlbeit_torch import (
    LANGUAGE,
    VISION,
    Backbone,
    Earlier,
    Layout,
    check_files,
    fill,
    mean_of_words,
    normalise,
    read_export,
)

__all__ = ["VQA", "Captioner", "Classifier", "DualEncoder", "check_files", "load", "normalise"]


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
        """Returns logits [B, answers]; the arguments are those of ``VLBEiT``.

        Raises:
          ValueError: an input has a size that the model does not support.
        """
        states, _ = self.encode(image, text)
        return self.head(self.pooler(states[VISION][:, 0]))


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


class Captioner(FineTuned):
    """Writes captions (BEiT-3): an image sees itself, a piece sees the image and earlier pieces."""

    def __init__(self, config: dict, network: dict):
        super().__init__(config, network, final_norm=True)
        self.language_head = nn.Linear(config["width"], config["vocabulary"])

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Returns logits [B, T, vocabulary] of the piece at each position.

        The piece at a position with MASK is predicted from the image and the pieces before.

        Raises:
          ValueError: an input has a size that the model does not support.
        """
        return self.language_head(self.encode(image, text)[0][LANGUAGE])

    def caption(
        self, image: Tensor, beams: int | None = None, length_penalty: float | None = None
    ) -> Tensor:
        """Returns word pieces [B, T] of the best caption of each image: CLS, pieces, SEP, padding.

        Args:
          image: [B, 3, height, width] in [-1, 1], see ``normalise``.
          beams: captions that are followed; 1: greedy; by default as in config.json.
          length_penalty: a caption of n pieces is judged by its log-probability divided by n to
            this power; by default as in config.json.
        """
        length, special = self.network["inputs"]["text_length"], self.network["pieces"]
        beams = self.network["beams"] if beams is None else beams
        penalty = self.network["length_penalty"] if length_penalty is None else length_penalty
        with torch.inference_mode():
            earlier = self._read(image, length)
            searches = [Search(beams, penalty, length, special) for _ in image]
            for position in range(1, length):
                texts = [text for search in searches for text in search.shown(self.pad)]
                row = torch.tensor(texts, device=image.device)
                shares = self._next(row, earlier, beams, position).log_softmax(dim=-1)
                for search, own in zip(searches, shares.double().cpu().split(beams), strict=True):
                    search.extend(own, last=position == length - 1)
                if all(search.done for search in searches):
                    break
        rows = [search.best + [self.pad] * (length - len(search.best)) for search in searches]
        return torch.tensor(rows, device=image.device)

    def _masks(self, text: Tensor | None, layout: Layout) -> list[Tensor | None]:
        """Returns what queries see; see ``Backbone``."""
        assert text is not None, "a captioner reads images with texts"
        images, texts = (length for _, length in layout)
        seen = torch.ones(images + texts, images + texts, dtype=torch.bool, device=text.device)
        seen[:images, images:] = False
        seen[images:, images:] = seen[images:, images:].tril()
        masks = super()._masks(text, layout)
        return [
            mask & seen if mask.dtype is torch.bool else mask.masked_fill(~seen, -math.inf)
            for mask in masks
            if mask is not None
        ]

    def _read(self, image: Tensor, length: int) -> list[Earlier]:
        """Returns the keys and values of images in each block."""
        assert self.vision_embed is not None
        earlier: list[Earlier] = [{} for _ in self.encoder.blocks]
        x = self.vision_embed(image)
        text = torch.full((len(image), length), 1 + self.pad, device=image.device)
        count = x.shape[1]
        masks = self._masks(text, ((VISION, count), (LANGUAGE, length)))
        own = [mask[..., :count, :count] for mask in masks if mask is not None]
        # A pair without text yet: it goes through the experts of pairs.
        self.encoder(x, ((VISION, count), (LANGUAGE, 0)), own, earlier=earlier)
        return earlier

    def _next(self, text: Tensor, earlier: list[Earlier], beams: int, position: int) -> Tensor:
        """Returns logits [B * beams, vocabulary] at a position of texts about images."""
        assert self.text_embed is not None
        count = earlier[0]["key"].shape[1]
        masks = self._masks(text, ((VISION, count), (LANGUAGE, text.shape[1])))
        own = [mask[..., count:, :] for mask in masks if mask is not None]
        read = [
            {name: value.repeat_interleave(beams, dim=0) for name, value in each.items()}
            for each in earlier
        ]
        layout = ((VISION, 0), (LANGUAGE, text.shape[1]))
        states, _ = self.encoder(self.text_embed(text), layout, own, earlier=read)
        return self.language_head(states[:, position])


class Search:
    """Beam search for the caption of one image.

    Attributes:
      best: the best finished caption so far.
      done: whether no unfinished one can become better.
    """

    def __init__(self, beams: int, penalty: float, length: int, special: dict[str, int]):
        self.beams, self.penalty, self.length = beams, penalty, length
        self.sep, self.mask = special["sep"], special["mask"]
        self.never = [special[name] for name in ("pad", "cls", "mask")]
        self.alive: list[tuple[float, list[int]]] = [(0.0, [special["cls"]])]
        self.best: list[int] = []
        self.best_score, self.done = -math.inf, False

    def shown(self, pad: int) -> list[list[int]]:
        """Returns the unfinished captions as the model sees them, as many as there are beams."""
        texts = [[*text, self.mask] for _, text in self.alive]
        texts += [texts[0]] * (self.beams - len(texts))
        return [text + [pad] * (self.length - len(text)) for text in texts]

    def extend(self, shares: Tensor, last: bool) -> None:
        """Adds a piece to each unfinished caption.

        Args:
          shares: log-probabilities [beams, vocabulary] of the next piece.
          last: the caption has to end here.
        """
        if self.done:
            return
        shares = shares[: len(self.alive)].clone()
        shares[:, self.never] = -math.inf
        if last:
            shares[:, [piece for piece in range(shares.shape[1]) if piece != self.sep]] = -math.inf
        totals = shares + torch.tensor([[total] for total, _ in self.alive], dtype=shares.dtype)
        found = totals.flatten().topk(min(2 * self.beams, totals.numel()))
        alive: list[tuple[float, list[int]]] = []
        ends_first = False
        for total, index in zip(found.values.tolist(), found.indices.tolist(), strict=True):
            if total == -math.inf or len(alive) == self.beams:
                break
            beam, piece = divmod(index, shares.shape[1])
            text = [*self.alive[beam][1], piece]
            if piece != self.sep:
                alive.append((total, text))
                continue
            ends_first |= not alive
            if (score := total / len(text) ** self.penalty) > self.best_score:
                self.best, self.best_score = text, score
        # A log-probability only falls. Of negative numbers, the longest text makes the most.
        most = max((total for total, _ in alive), default=-math.inf) / self.length**self.penalty
        self.done = self.best_score >= most or (self.beams == 1 and ends_first)
        self.alive = alive or self.alive


NETWORKS: dict[str, type[FineTuned]] = {  # By kind.
    "classification": Classifier,
    "vqa": VQA,
    "retrieval": DualEncoder,
    "captioning": Captioner,
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
    make: Any = NETWORKS[config["network"]["kind"]]
    model = make(config["model"], config["network"])
    fill(model, tensors, folder)
    model.folder, model.exported = folder, config
    return model
