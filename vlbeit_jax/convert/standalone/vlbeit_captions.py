"""Writes captions with a fine-tuned VL-BEiT model in PyTorch, piece by piece (BEiT-3).

``vlbeit_finetuned.py`` needs this file, which needs torch and ``vlbeit_torch.py``.

Dimension letters: B batch, T word pieces.
"""

import math

import torch
from torch import Tensor, nn
from vlbeit_torch import LANGUAGE, VISION, Backbone, Earlier, Layout


class Writes(Backbone):
    """Writes captions: an image sees itself, a piece sees the image and the pieces before it.

    Attributes:
      network: "network" in config.json.
      language_head: from states to logits of word pieces.
    """

    network: dict
    language_head: nn.Linear

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
