"""Segmentation with a fine-tuned VL-BEiT model in PyTorch: UPerNet as in BEiT.

``vlbeit_finetuned.py`` needs this file, which needs torch and ``vlbeit_torch.py``.

Dimension letters: B batch, D width, h and w places of a map.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from vlbeit_torch import Backbone, normalise

GROUPS, SMALLEST_GROUP, AUXILIARY_WIDTH = 32, 4, 256


class Segmenter(Backbone):
    """Gives each pixel a class, from the states after four blocks.

    Attributes:
      network: "network" in config.json.
    """

    def __init__(self, config: dict, network: dict):
        super().__init__(config, network["modalities"], network["experts"], final_norm=False)
        self.network = network
        self.head = UPerHead(config["width"], network)
        self.auxiliary = FCNHead(config["width"], network) if network["auxiliary"] else None

    def forward(self, image: Tensor) -> Tensor:
        """Returns logits [B, classes, h, w] at a quarter of the image's side, for patches of 16.

        Args:
          image: [B, 3, height, width] in [-1, 1], see ``normalise``.
        """
        return self.head(self.maps(image))

    def auxiliary_logits(self, image: Tensor) -> Tensor:
        """Returns the auxiliary head's logits [B, classes, h, w], which only training needs."""
        if self.auxiliary is None:
            raise ValueError("this model was trained without an auxiliary head")
        return self.auxiliary(self.maps(image)[self.network["auxiliary_tap"]])

    def maps(self, image: Tensor) -> list[Tensor]:
        """Returns the four maps [B, D, h, w] that the head takes."""
        taps = self.network["taps"]
        wanted = sorted(set(taps))
        found = dict(zip(wanted, self.encode(image, features=wanted)[1], strict=True))
        return [found[block] for block in taps]

    def segment(self, image: Tensor) -> Tensor:
        """Returns the class of each pixel [B, height, width] of images of the model's size."""
        return resized(self(image), image.shape[-2:]).argmax(dim=1)


class UPerHead(nn.Module):
    """The main head (arXiv 1807.10221)."""

    def __init__(self, width: int, network: dict):
        super().__init__()
        own, kind = network["width"], network["norm"]
        self.pyramid, self.pools = Pyramid(width, kind), network["pools"]
        for bins in self.pools:
            self.add_module(f"pool_{bins}", ConvNorm(width, own, 1, kind))
        self.pooled = ConvNorm(width + own * len(self.pools), own, 3, kind)
        for level in range(3):
            self.add_module(f"lateral_{level}", ConvNorm(width, own, 1, kind))
            self.add_module(f"smooth_{level}", ConvNorm(own, own, 3, kind))
        self.fuse = ConvNorm(4 * own, own, 3, kind)
        self.classes = nn.Conv2d(own, len(network["classes"]), 1)

    def forward(self, taps: list[Tensor]) -> Tensor:
        """Returns logits from four maps, those of earlier blocks first."""
        levels = self.pyramid(taps)
        last = levels[-1]
        pooled = [last]
        for bins in self.pools:
            part = self.get_submodule(f"pool_{bins}")(functional.adaptive_avg_pool2d(last, bins))
            pooled.append(resized(part, last.shape[-2:]))
        maps = [self.pooled(torch.cat(pooled, dim=1))]
        for level in (2, 1, 0):
            lateral = self.get_submodule(f"lateral_{level}")(levels[level])
            maps.insert(0, lateral + resized(maps[0], lateral.shape[-2:]))
        maps[:3] = [self.get_submodule(f"smooth_{level}")(maps[level]) for level in range(3)]
        joined = torch.cat([resized(each, maps[0].shape[-2:]) for each in maps], dim=1)
        return self.classes(self.fuse(joined))


class Pyramid(nn.Module):
    """Four maps of one size to maps of four sizes (BEiT)."""

    def __init__(self, width: int, kind: str):
        super().__init__()
        self.first = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.first_norm = norm(kind, width)
        self.first_again = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.second = nn.ConvTranspose2d(width, width, 2, stride=2)

    def forward(self, taps: list[Tensor]) -> list[Tensor]:
        """Returns the maps, the largest first."""
        first = functional.gelu(self.first_norm(self.first(taps[0])))
        smallest = functional.max_pool2d(taps[3], 2)
        return [self.first_again(first), self.second(taps[1]), taps[2], smallest]


class FCNHead(nn.Module):
    """The auxiliary head (arXiv 1411.4038)."""

    def __init__(self, width: int, network: dict):
        super().__init__()
        own = min(AUXILIARY_WIDTH, network["width"])
        self.conv = ConvNorm(width, own, 3, network["norm"])
        self.classes = nn.Conv2d(own, len(network["classes"]), 1)

    def forward(self, tap: Tensor) -> Tensor:
        """Returns logits at the size of the map."""
        return self.classes(self.conv(tap))


class ConvNorm(nn.Module):
    """Convolution without bias, norm, ReLU; the map keeps its size."""

    def __init__(self, inputs: int, outputs: int, size: int, kind: str):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
        self.norm = norm(kind, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the map of features."""
        return functional.relu(self.norm(self.conv(x)))


class BatchNorm(nn.Module):
    """As ``nn.BatchNorm2d``, without the count of batches, which no file of weights has here."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.zeros(channels)) for _ in range(2))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the normalised map."""
        moments = (self.running_mean, self.running_var)
        return functional.batch_norm(x, *moments, self.weight, self.bias, self.training)


def norm(kind: str, channels: int) -> nn.Module:
    """Returns the norm of a map."""
    if kind == "batch":
        return BatchNorm(channels)
    groups = math.gcd(channels, max(min(GROUPS, channels // SMALLEST_GROUP), 1))
    return nn.GroupNorm(groups, channels)


def segmentation(model: Segmenter, data: dict[str, Tensor], batch_size: int) -> dict[str, float]:
    """Returns mIoU and accuracies over all pictures of ``evaluation.safetensors``.

    Logits of windows are averaged and resized to the picture by the file that JAX's evaluation
    used.
    """
    from segmentation_scores import (  # pyright: ignore[reportMissingImports]
        counts,
        joined,
        summary,
    )
    from segmentation_windows import Canvas, Size  # pyright: ignore[reportMissingImports]

    side, classes = model.network["inputs"]["side"], len(model.network["classes"])
    window, sizes = data["window"].tolist(), [Size(*each) for each in data["size"].tolist()]
    number = data["window"][:, 0].bincount().tolist()
    resized = [Size(*each) for each in data["resized"].tolist()]
    canvases = [Canvas(*each) for each in zip(resized, number, strict=True)]
    masks = data["mask"].split([size.height * size.width for size in sizes])
    found = []
    for start in range(0, len(window), batch_size):
        rows = normalise(data["image"][start : start + batch_size].permute(0, 3, 1, 2))
        logits = model(rows).permute(0, 2, 3, 1).numpy()
        for (picture, *place), own in zip(window[start : start + batch_size], logits, strict=True):
            canvas, size = canvases[picture], sizes[picture]
            canvas.add(tuple(place), own, side)
            if not canvas.waiting:
                truth = masks[picture].reshape(size).numpy()
                found.append(counts(truth, canvas.classes(size), classes))
                canvases[picture] = None
    return summary(joined(found, classes))


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Returns a map at another size."""
    return functional.interpolate(x, list(size), mode="bilinear", align_corners=False)
