"""VL-BEiT and its visual tokenizer in PyTorch.

    from vlbeit_torch import load, normalise

    # The folder with this file, the weights and config.json.
    model, visual_tokenizer = load(".")
    # pixels: uint8 [B, 3, height, width]; pieces: int64 [B, T].
    output = model(image=normalise(pixels), text=pieces)
    # States of every patch and word piece, after the last norm.
    output.image, output.text
    # One vector per image and per text: the mean state, and the state of CLS.
    output.image_mean, output.text_mean, output.image_cls, output.text_cls
    # Maps [B, D, rows, columns] for dense prediction.
    model(image=..., features=(3, 5, 7, 11)).features
    # Logits of visual tokens at masked patches.
    model(image=..., masked_patches=positions).image_logits
    # Visual tokens of every patch.
    visual_tokenizer.encode(image)

This file needs nothing but torch, and safetensors to read the weights. With huggingface_hub there
are also ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``. It is one file, whatever its
length, so that users can copy it into their projects. It holds, in this order: the Transformer,
embeddings, the hub, the backbone, the pretrained model, visual tokenizers, relative positions,
saving and loading.
A fine-tuned model adds a head to the backbone, in ``vlbeit_finetuned.py``.

Images, texts and pairs go through one Transformer. Self-attention is shared. Each modality has its
own feed-forward expert, and pairs have a third one in the top blocks (VL-BEiT). In
BEiT-3's form ("decoupled"), each modality also has its own attention projections and norms.

Dimension letters: B batch, L tokens, N patches, T word pieces, M masked positions, D width,
C visual tokens, E width of a code, K width of a head.
"""

import dataclasses
import hashlib
import importlib.util
import json
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree

# With huggingface_hub, models have ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``.
HubMixin: Any = object
if importlib.util.find_spec("huggingface_hub"):
    import huggingface_hub

    HubMixin = huggingface_hub.PyTorchModelHubMixin

VISION, LANGUAGE, VISION_LANGUAGE = "vision", "language", "vision_language"
CONFIG, WEIGHTS, MANIFEST = "config.json", "model.safetensors", "manifest.json"
CARD, CHANGED = "README.md", "The weights were changed after this card was written."
Layout = Sequence[tuple[str, int]]  # Modality and length of each run of tokens.
# Of one block: "key" and "value" of tokens that were read before, [B, L, heads, K]. Attention puts
# those of its tokens into an empty dictionary, and sees those of a filled one first.
Earlier = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a Transformer, as in config.json."""

    width: int
    depth: int
    heads: int
    ffn_width: int
    fused_layers: int = 0
    layer_scale: bool = False
    experts: tuple[str, ...] = (VISION, LANGUAGE)
    eps: float = 1e-6
    decoupled: bool = False
    sub_norm: bool = False

    def norm(self) -> nn.LayerNorm:
        """Makes a norm for tokens of one kind."""
        return nn.LayerNorm(self.width, eps=self.eps)

    def token_norm(self) -> nn.Module:
        """Makes what ``apply_norm`` calls: a norm for all tokens, or in BEiT-3's form one each."""
        return self.routed(self.norm) if self.decoupled else self.norm()

    def inner_norm(self, width: int) -> nn.Module:
        """Makes the norm before an output projection, if the model has such norms."""
        return nn.LayerNorm(width, eps=self.eps) if self.sub_norm else nn.Identity()

    def routed(self, make: Callable[[], nn.Module]) -> "Routed":
        """Makes one module per modality."""
        return Routed({name: make() for name in self.experts})


class Output(dict[str, Any]):
    """What the model returns: ``output.image`` and ``output["image"]`` are the same.

    Nothing is kept for an absent modality, so only the attribute, not the key, is there; it is
    None. A dictionary without None is what ``DataParallel``, ``torch.jit.trace`` and ONNX take.

    Attributes:
      image_cls: state of the image's CLS [B, D], after the last norm as all states.
      image_mean: mean state of the patches [B, D].
      image: states of patches [B, N, D].
      text_cls: state of the text's CLS [B, D].
      text_mean: mean state of the word pieces, without padding [B, D].
      text: states of word pieces [B, T - 1, D]; those of padding mean nothing.
      image_logits: [B, M, C] at ``masked_patches``.
      text_logits: [B, M, vocabulary] at ``text_masked``.
      features: maps [B, D, rows, columns] after the requested blocks, before the last norm.
    """

    image_cls: Tensor | None
    image_mean: Tensor | None
    image: Tensor | None
    text_cls: Tensor | None
    text_mean: Tensor | None
    text: Tensor | None
    image_logits: Tensor | None
    text_logits: Tensor | None
    features: list[Tensor] | None

    def __getattr__(self, name: str) -> Any:
        """Returns an output, or None if there is none."""
        if name in Output.__annotations__:
            return self.get(name)
        raise AttributeError(f"the model has no output {name!r}")


# Tells torch.export which tensors an output holds, and rebuilds it from them.
_pytree.register_pytree_node(
    Output,
    lambda output: (list(output.values()), list(output)),
    lambda values, names: Output(zip(names, values, strict=True)),
    serialized_type_name="vlbeit_torch.Output",
)


def normalise(pixels: Tensor) -> Tensor:
    """Scales pixels 0 to 255, [B, 3, height, width], to [-1, 1], which every network here takes."""
    return pixels.float() / 127.5 - 1


def _check_image(image: Tensor, side: int, larger: bool = False) -> None:
    size = image.shape[-1]
    fits = size >= side and size % side == 0 if larger else size == side
    if not fits or list(image.shape[1:]) != [3, size, size]:
        multiple = " or a multiple of it" if larger else ""
        raise ValueError(
            f"image has shape {list(image.shape)}; needed is [B, 3, height, width] with "
            f"height = width = {side}{multiple}"
        )
    if not image.is_floating_point():
        raise ValueError(
            f"pixels are {image.dtype}; call normalise(pixels) to scale 0 to 255 to [-1, 1]"
        )


def _downsample(image: Tensor, side: int) -> Tensor:
    """Averages a larger image down to ``side`` pixels."""
    _check_image(image, side, larger=True)
    return functional.avg_pool2d(image, image.shape[-1] // side)


class Routed(nn.ModuleDict):
    """Modules by modality: each run of tokens goes through its modality's module."""

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """[B, L, I] to [B, L, O]."""
        runs = x.split([length for _, length in layout], dim=1)
        return torch.cat(
            [self[name](run) for (name, _), run in zip(layout, runs, strict=True)], dim=1
        )


def apply_norm(norm: nn.Module, x: Tensor, layout: Layout) -> Tensor:
    """Normalises [B, L, D] by one norm for all tokens, or by each modality's own."""
    return norm(x, layout) if isinstance(norm, Routed) else norm(x)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    earlier: Earlier | None = None,
) -> Tensor:
    """Attends; each input is [B, L, heads, K], the result is [B, L, D] with heads concatenated.

    ``mask`` broadcasts to [B, heads, queries, keys]. It is True where a query may attend to a key,
    or holds numbers that are added to the logits.
    """
    if earlier:
        key = torch.cat([earlier["key"], key], dim=1)
        value = torch.cat([earlier["value"], value], dim=1)
    elif earlier is not None:
        earlier |= {"key": key, "value": value}
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    return (
        functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        .transpose(1, 2)
        .flatten(2)
    )


class Attention(nn.Module):
    """Multi-head self-attention that all modalities share; queries and values have a bias."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.heads, width = shape.heads, shape.width
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.query_bias = nn.Parameter(torch.zeros(width))
        self.value_bias = nn.Parameter(torch.zeros(width))
        self.inner_norm = shape.inner_norm(width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, layout: Layout, mask: Tensor | None, earlier: Earlier | None = None
    ) -> Tensor:
        """[B, L, D] to [B, L, D]; for ``mask`` see ``attend``."""
        bias = torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])
        qkv = functional.linear(x, self.qkv.weight, bias).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.unbind(2)
        return self.out(self.inner_norm(attend(query, key, value, mask, earlier)))


class DecoupledAttention(nn.Module):
    """BEiT-3's attention: own projections per modality, and all tokens attend to each other."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.heads, width = shape.heads, shape.width
        self.query, self.key, self.value, self.out = (
            shape.routed(lambda: nn.Linear(width, width)) for _ in range(4)
        )
        self.inner_norm = shape.routed(lambda: shape.inner_norm(width))

    def forward(
        self, x: Tensor, layout: Layout, mask: Tensor | None, earlier: Earlier | None = None
    ) -> Tensor:
        """[B, L, D] to [B, L, D]; for ``mask`` see ``attend``."""
        query, key, value = (
            part(x, layout).unflatten(-1, (self.heads, -1))
            for part in (self.query, self.key, self.value)
        )
        mixed = attend(query, key, value, mask, earlier)
        return self.out(self.inner_norm(mixed, layout), layout)


class Expert(nn.Module):
    """A modality's own norm and feed-forward network."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.norm = shape.norm()
        self.up = nn.Linear(shape.width, shape.ffn_width)
        self.inner_norm = shape.inner_norm(shape.ffn_width)
        self.down = nn.Linear(shape.ffn_width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] to the residual of the same shape."""
        return self.down(self.inner_norm(functional.gelu(self.up(self.norm(x)))))


class Block(nn.Module):
    """Attention, then experts, each as a scaled residual."""

    def __init__(self, shape: Shape, experts: Sequence[str]):
        super().__init__()
        self.attention_norm = shape.token_norm()
        self.attention = DecoupledAttention(shape) if shape.decoupled else Attention(shape)
        self.experts = Routed({name: Expert(shape) for name in experts})
        self.scaled = shape.layer_scale
        if self.scaled:
            self.attention_scale = nn.Parameter(torch.ones(shape.width))
            self.expert_scale = nn.Parameter(torch.ones(shape.width))

    def forward(
        self, x: Tensor, layout: Layout, mask: Tensor | None, earlier: Earlier | None = None
    ) -> Tensor:
        """[B, L, D] to [B, L, D]."""
        mixed = self.attention(apply_norm(self.attention_norm, x, layout), layout, mask, earlier)
        x = x + (mixed * self.attention_scale if self.scaled else mixed)
        together = len(layout) > 1 and VISION_LANGUAGE in self.experts
        fed = self.experts[VISION_LANGUAGE](x) if together else self.experts(x, layout)
        return x + (fed * self.expert_scale if self.scaled else fed)


class Transformer(nn.Module):
    """The blocks, and the last norm unless a head brings its own.

    ``experts`` names those of each block. By default each has one per modality, and the top
    ``fused_layers`` have that of pairs too.
    """

    def __init__(
        self,
        shape: Shape,
        experts: Sequence[Sequence[str]] | None = None,
        final_norm: bool = True,
    ):
        super().__init__()
        if experts is None:
            below, own = shape.depth - shape.fused_layers, shape.experts
            experts = [own] * below + [(*own, VISION_LANGUAGE)] * shape.fused_layers
        self.blocks = nn.ModuleList(Block(shape, names) for names in experts)
        self.norm = shape.token_norm() if final_norm else None

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        masks: Sequence[Tensor | None],
        keep: Sequence[int] = (),
        earlier: Sequence[Earlier | None] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns the last states, and those after the blocks in ``keep``.

        ``earlier`` has what each block knows of tokens that were read before.
        """
        kept, earlier = {}, earlier or [None] * len(self.blocks)
        for index, (block, mask, own) in enumerate(zip(self.blocks, masks, earlier, strict=True)):
            x = block(x, layout, mask, own)
            if index in keep:
                kept[index] = x
        last = x if self.norm is None else apply_norm(self.norm, x, layout)
        return last, [kept[index] for index in keep]


class VisionEmbed(nn.Module):
    """Turns patches into tokens, CLS first.

    Masked patches become the mask token before positions are added.
    """

    def __init__(
        self,
        width: int,
        channels: int,
        side: int,
        patches: int,
        absolute: bool = True,
        maskable: bool = True,
    ):
        super().__init__()
        self.patch = nn.Conv2d(channels, width, side, side)
        self.cls = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(torch.zeros(patches + 1, width)) if absolute else None
        self.mask_token = nn.Parameter(torch.zeros(width)) if maskable else None
        self.modality = nn.Parameter(torch.zeros(width)) if maskable else None

    def forward(
        self, image: Tensor, masked: Tensor | None = None, modality: Tensor | None = None
    ) -> Tensor:
        """Image [B, channels, height, width] and masked patches [B, M] to [B, N + 1, D].

        ``modality`` [B, 1, D], if given, replaces the embedding of the modality.
        """
        x = functional.linear(
            # ``normalise`` gives float32, and the weights may be of half precision.
            _patches(image.to(self.patch.weight.dtype), self.patch.kernel_size[0]),
            self.patch.weight.flatten(1),
            self.patch.bias,
        )
        if masked is not None:
            assert self.mask_token is not None, "there is no mask token here"
            hidden = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device).scatter(
                1, masked, True
            )
            x = torch.where(hidden[..., None], self.mask_token, x)
        x = torch.cat([self.cls.expand(x.shape[0], 1, -1), x], dim=1)
        x = x if self.positions is None else x + self.positions
        modality = self.modality if modality is None else modality
        return x if modality is None else x + modality


def _patches(image: Tensor, side: int) -> Tensor:
    """[B, channels, height, width] to [B, N, channels * side * side].

    One matrix product then embeds the patches, which is faster than a convolution.
    """
    cut = image.unflatten(3, (-1, side)).unflatten(2, (-1, side))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


class TextEmbed(nn.Module):
    """Turns word pieces into tokens; without absolute positions they are normalised."""

    def __init__(self, width: int, vocabulary: int, positions: int, absolute: bool, eps: float):
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.zeros(positions, width)) if absolute else None
        self.norm = None if absolute else nn.LayerNorm(width, eps=eps)
        self.modality = nn.Parameter(torch.zeros(width))

    def forward(self, text: Tensor) -> Tensor:
        """[B, T] to [B, T, D]."""
        x = self.words(text)
        x = x if self.positions is None else x + self.positions[: text.shape[1]]
        return (x if self.norm is None else self.norm(x)) + self.modality


class Shared(HubMixin):
    """Loads from and saves to a folder, or a repository of the Hugging Face Hub.

    ``save_pretrained`` writes all that ``vlbeit_jax.convert`` writes: weights, configuration,
    tokenizers, model card and this file. The weights must fit the configuration, name by name.
    """

    folder: pathlib.Path | None = None  # What the model was loaded from.
    exported: dict  # The content of config.json there.
    prefix = ""  # Of the model's tensors in the file of weights.

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        config: dict | None = None,
        network: dict | None = None,
        **options: Any,
    ) -> Self:
        """Downloads a repository, unless ``model_id`` is a folder, and loads it."""
        asked = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        download = {name: options.pop(name) for name in asked if name in options}
        if unknown := [name for name, value in options.items() if value is not None]:
            raise TypeError(f"from_pretrained has no argument {', '.join(unknown)}")
        folder = pathlib.Path(model_id)
        if not folder.is_dir():
            # The examples of an evaluation may be large, and the model does not need them.
            download["ignore_patterns"] = ["evaluat*"]
            folder = pathlib.Path(huggingface_hub.snapshot_download(model_id, **download))
        model = cls.open(folder)
        # The mixin passes what it has read in config.json. Other values would not fit the weights.
        for given, own in ((config, model.exported), (network, model.exported.get("network"))):
            if given is not None and given != own:
                raise ValueError(f"{folder}: the configuration is that of config.json; give none")
        return model

    @classmethod
    def open(cls, folder: pathlib.Path) -> Self:
        """Loads a model of this class from a folder."""
        raise NotImplementedError

    def _save_pretrained(self, save_directory: pathlib.Path) -> None:
        """Writes the present weights, with the other files of the folder they were loaded from."""
        if self.folder is None:
            raise ValueError(
                "this model was not loaded from an export, so its tokenizers and its card are "
                "not known; open an export with load or from_pretrained, and change its weights"
            )
        save_export(self, self.folder, save_directory)


class Backbone(nn.Module, Shared):
    """Embeddings and Transformer, which every task shares; ``config`` is "model" in config.json.

    A fine-tuned model lacks the modalities and experts that its task does not need.
    """

    def __init__(
        self,
        config: dict,
        modalities: Sequence[str] = (VISION, LANGUAGE),
        experts: Sequence[Sequence[str]] | None = None,
        final_norm: bool = True,
    ):
        super().__init__()
        self.config = config
        self.grid = config["image_size"] // config["patch_size"]
        self.pad, width = config["pad"], config["width"]
        absolute = config["positions"] == "absolute"
        shape = Shape(
            width,
            config["depth"],
            config["heads"],
            config["ffn_width"],
            config["fused_layers"],
            config["layer_scale"] > 0,
            experts=tuple(modalities),
            eps=config["layer_norm_eps"],
            decoupled=config["decoupled"],
            sub_norm=config["sub_norm"],
        )
        self.vision_embed, self.text_embed = None, None
        if VISION in modalities:
            self.vision_embed = VisionEmbed(width, 3, config["patch_size"], self.grid**2, absolute)
        if LANGUAGE in modalities:
            positions, eps = config["text_positions"], config["text_norm_eps"]
            self.text_embed = TextEmbed(width, config["vocabulary"], positions, absolute, eps)
        self.encoder = Transformer(shape, experts, final_norm)
        self.relative_positions = None
        if not absolute:
            rows = _table_rows(self.grid, config["text_positions"])
            self.relative_positions = nn.Parameter(
                torch.zeros(rows, config["depth"], config["heads"])
            )

    def encode(
        self,
        image: Tensor | None = None,
        text: Tensor | None = None,
        masked_patches: Tensor | None = None,
        features: Sequence[int] = (),
        modality: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Returns the states of each modality, CLS first, and patches after some blocks as maps.

        For the arguments see ``VLBEiT.forward``; ``modality`` is that of ``VisionEmbed.forward``.

        Raises:
          ValueError: an input is missing or has a size that the model does not support.
        """
        # In torch.jit.trace sizes are no numbers. Each input has been through the model before.
        if not torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
            self._check(image, text)
        parts, layout = [], []
        if image is not None:
            assert self.vision_embed is not None
            parts.append(self.vision_embed(image, masked_patches, modality))
            layout.append((VISION, parts[-1].shape[1]))
        if text is not None:
            assert self.text_embed is not None
            parts.append(self.text_embed(text))
            layout.append((LANGUAGE, text.shape[1]))
        masks = self._masks(text, layout)
        states, kept = self.encoder(torch.cat(parts, dim=1), layout, masks, features)
        split = states.split([length for _, length in layout], dim=1)
        # Patches come first, after their CLS.
        maps = [
            x[:, 1 : layout[0][1]].transpose(1, 2).unflatten(2, (self.grid, self.grid))
            for x in kept
        ]
        return {name: own for (name, _), own in zip(layout, split, strict=True)}, maps

    def _check(self, image: Tensor | None, text: Tensor | None) -> None:
        longest = self.config["text_positions"]
        if image is None and text is None:
            raise ValueError("give an image, a text, or both; neither was given")
        if image is not None:
            if self.vision_embed is None:
                raise ValueError("this model reads texts only; leave the image out")
            _check_image(image, self.config["image_size"])
        if text is not None:
            if self.text_embed is None:
                raise ValueError("this model reads images only; leave the text out")
            if text.ndim != 2:
                raise ValueError(f"text has shape {list(text.shape)}; needed is [B, T]")
            if text.shape[1] > longest:
                raise ValueError(
                    f"texts of {text.shape[1]} word pieces; the model has {longest} positions"
                )
        # ``shape[0]``, and not ``len``, so that torch.export keeps the number of rows open.
        if image is not None and text is not None and image.shape[0] != text.shape[0]:
            raise ValueError(
                f"{image.shape[0]} images but {text.shape[0]} texts; a pair is one of each"
            )

    def _masks(self, text: Tensor | None, layout: Layout) -> list[Tensor | None]:
        """Returns each block's attention mask (see ``attend``).

        Which masks there are depends on sizes alone, so ``torch.compile`` sees no branch on values.
        """
        valid = None
        if text is not None:
            # Patches come first and are never padding.
            patches = sum(length for _, length in layout) - text.shape[1]
            valid = functional.pad(text != self.pad, (patches, 0), value=True)[:, None, None]
        if self.relative_positions is None:
            return [valid] * self.config["depth"]
        index = relative_index(layout, self.grid, self.config["text_positions"])
        table = self.relative_positions[index.to(self.relative_positions.device)]
        bias = table.permute(2, 3, 0, 1)[:, None]  # [depth, 1, heads, L, L]
        return list(bias if valid is None else bias.masked_fill(~valid, float("-inf")))


class VLBEiT(Backbone):
    """The pretrained model; ``config`` is "model" in config.json."""

    prefix = "model."

    def __init__(self, config: dict):
        super().__init__(config)
        self.vision_head = nn.Linear(config["width"], config["codes"])
        self.language_head = nn.Linear(config["width"], config["vocabulary"])

    @classmethod
    def open(cls, folder: pathlib.Path) -> Self:
        """Loads the model without its visual tokenizer; see ``load``."""
        return load(folder)[0]

    def forward(
        self,
        image: Tensor | None = None,
        text: Tensor | None = None,
        masked_patches: Tensor | None = None,
        text_masked: Tensor | None = None,
        features: Sequence[int] = (),
    ) -> Output:
        """Encodes images, texts, or both as pairs.

        Args:
          image: [B, 3, height, width] in [-1, 1], see ``normalise``.
          text: word pieces [B, T], CLS first, padded with ``config["pad"]``. To mask a word piece,
            replace it before.
          masked_patches: patches [B, M] that become the mask token and are predicted.
          text_masked: positions [B, M] that are predicted.
          features: blocks, counted from 0, after which patches are returned as maps.

        Raises:
          ValueError: an input is missing or has a size that the model does not support, or there is
            no such block.
        """
        depth = self.config["depth"]
        if image is None and (masked_patches is not None or features):
            raise ValueError("masked_patches and features need an image")
        if text is None and text_masked is not None:
            raise ValueError("text_masked needs a text")
        if any(not 0 <= block < depth for block in features):
            raise ValueError(f"features={list(features)}: the model has blocks 0 to {depth - 1}")
        states, maps = self.encode(image, text, masked_patches, features)
        output = Output()
        if VISION in states:
            patches = states[VISION][:, 1:]
            # Not `|=`, after which torch.compile takes the output for a plain dictionary.
            output.update(
                image_cls=states[VISION][:, 0], image_mean=patches.mean(dim=1), image=patches
            )
            if masked_patches is not None:
                output["image_logits"] = self.vision_head(_gather(patches, masked_patches))
        if text is not None:
            words = states[LANGUAGE]
            output.update(
                text_cls=words[:, 0],
                text_mean=mean_of_words(words[:, 1:], text[:, 1:] != self.pad),
                text=words[:, 1:],
            )
            if text_masked is not None:
                output["text_logits"] = self.language_head(_gather(words, text_masked))
        if features:
            output["features"] = maps
        return output


class VisualTokenizer(nn.Module):
    """VQ-KD: images to visual tokens, and visual tokens to its teacher's features.

    ``config`` is "visual_tokenizer" in config.json. Source: BEiT v2.
    """

    codebook: Tensor  # [C, E], unit vectors

    def __init__(self, config: dict):
        super().__init__()
        self.image_size, width = config["image_size"], config["width"]
        self.grid = self.image_size // config["patch_size"]

        def transformer(depth: int) -> Transformer:
            shape = Shape(
                width,
                depth,
                config["heads"],
                config["ffn_width"],
                experts=(VISION,),
                eps=config["layer_norm_eps"],
            )
            return Transformer(shape)

        self.encoder_embed = VisionEmbed(
            width, 3, config["patch_size"], self.grid**2, maskable=False
        )
        self.encoder = transformer(config["encoder_depth"])
        self.to_code = nn.Sequential(
            nn.Linear(width, width), nn.Tanh(), nn.Linear(width, config["code_width"])
        )
        self.register_buffer("codebook", torch.zeros(config["codes"], config["code_width"]))
        self.decoder_embed = VisionEmbed(
            width, config["code_width"], 1, self.grid**2, maskable=False
        )
        self.decoder = transformer(config["decoder_depth"])
        self.to_target = nn.Sequential(
            nn.Linear(width, width), nn.Tanh(), nn.Linear(width, config["target_width"])
        )

    def features(self, image: Tensor) -> Tensor:
        """[B, 3, height, width] in [-1, 1] to unit vectors [B, N, E].

        A larger image is first averaged down to the tokenizer's size.
        """
        x = self._run(self.encoder_embed(_downsample(image, self.image_size)), self.encoder)
        # Codes are close to each other, so rounding to bfloat16 would change which one is nearest.
        with torch.autocast(x.device.type, enabled=False):
            return functional.normalize(self.to_code(x.to(self.codebook.dtype)), dim=-1)

    def encode(self, image: Tensor) -> Tensor:
        """[B, 3, height, width] in [-1, 1] to visual tokens [B, N], row by row."""
        features = self.features(image)
        with torch.autocast(features.device.type, enabled=False):
            return (features @ self.codebook.T).argmax(dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Visual tokens [B, N] to the teacher's features [B, N, width]."""
        image = self.codebook[codes].transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return self.to_target(self._run(self.decoder_embed(image), self.decoder))

    def _run(self, x: Tensor, transformer: Transformer) -> Tensor:
        states, _ = transformer(x, [(VISION, x.shape[1])], [None] * len(transformer.blocks))
        return states[:, 1:]


class ResidualBlock(nn.Module):
    """Adds four convolutions, scaled by ``gain``, to the input."""

    def __init__(self, channels: int, features: int, gain: float):
        super().__init__()
        inner, self.gain = features // 4, gain
        sizes = [(channels, inner, 3), (inner, inner, 3), (inner, inner, 3), (inner, features, 1)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, o, side, padding="same") for i, o, side in sizes
        )
        self.identity = nn.Identity() if channels == features else nn.Conv2d(channels, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, height, width] to [B, features, height, width]."""
        added = x
        for convolution in self.convolutions:
            added = convolution(functional.relu(added))
        return self.identity(x) + self.gain * added


class DalleEncoder(nn.Module):
    """The encoder of DALL-E's discrete VAE: images to visual tokens.

    ``config`` is "visual_tokenizer" in config.json.
    """

    def __init__(self, config: dict):
        super().__init__()
        self.image_size, channels = config["image_size"], config["width"]
        gain = (config["groups"] * config["blocks"]) ** -2
        self.input = nn.Conv2d(3, channels, 7, padding="same")
        self.groups = nn.ModuleList()
        for group in range(config["groups"]):
            features = config["width"] * 2**group
            inputs = [channels] + [features] * (config["blocks"] - 1)
            self.groups.append(
                nn.Sequential(*(ResidualBlock(each, features, gain) for each in inputs))
            )
            channels = features
        self.output = nn.Conv2d(channels, config["codes"], 1)

    def logits(self, image: Tensor) -> Tensor:
        """[B, 3, height, width] in [-1, 1] to [B, N, C].

        A larger image is first averaged down to the tokenizer's size.
        """
        pixels = 0.4 * _downsample(image, self.image_size) + 0.5  # DALL-E's range is 0.1 to 0.9.
        x = self.input(pixels)
        for index, group in enumerate(self.groups):
            x = group(functional.max_pool2d(x, 2) if index else x)
        return self.output(functional.relu(x)).flatten(2).transpose(1, 2)

    def encode(self, image: Tensor) -> Tensor:
        """[B, 3, height, width] in [-1, 1] to visual tokens [B, N], row by row."""
        return self.logits(image).argmax(dim=-1)


def relative_index(layout: Layout, grid: int, text_positions: int) -> Tensor:
    """Returns the row of the bias table for every query and key, [L, L], in VLMo's joint table.

    The table's rows, in order: offsets between patches (query minus key); image CLS to patch, patch
    to CLS, CLS to CLS; text to image; image to text; offsets between word pieces (key minus query);
    text CLS to word piece, word piece to CLS, CLS to CLS.
    """
    first = (2 * grid - 1) ** 2 + 3
    rows = []
    for query, length in layout:
        row = []
        for key, other in layout:
            if query != key:
                row.append(torch.full((length, other), first if query == LANGUAGE else first + 1))
            elif query == VISION:
                row.append(_with_cls(_vision_offsets(grid), first - 3))
            else:
                position = torch.arange(length - 1)
                offsets = first + 2 + text_positions - 2 + position[None, :] - position[:, None]
                row.append(_with_cls(offsets, _table_rows(grid, text_positions) - 3))
        rows.append(torch.cat(row, dim=1))
    return torch.cat(rows, dim=0)


def _table_rows(grid: int, text_positions: int) -> int:
    return (2 * grid - 1) ** 2 + 3 + 2 + 2 * text_positions - 3 + 3


def _vision_offsets(grid: int) -> Tensor:
    row, column = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    down, right = (
        axis.flatten()[:, None] - axis.flatten()[None, :] + grid - 1 for axis in (row, column)
    )
    return down * (2 * grid - 1) + right


def _with_cls(inner: Tensor, first: int) -> Tensor:
    """Adds CLS as the first query, row ``first``, and as the first key, row ``first + 1``."""
    # Without assignment to parts, which would fix the length in torch.export.
    from_cls = functional.pad(torch.full((1, inner.shape[1]), first), (1, 0), value=first + 2)
    return torch.cat([from_cls, functional.pad(inner, (1, 0), value=first + 1)])


def mean_of_words(states: Tensor, valid: Tensor) -> Tensor:
    """Returns the mean of states [B, T, D] over the tokens that are True in ``valid`` [B, T]."""
    total = states.masked_fill(~valid[..., None], 0).sum(dim=1)
    return total / valid.sum(dim=1, keepdim=True).clamp(min=1)


def _gather(x: Tensor, positions: Tensor) -> Tensor:
    return x.gather(1, positions[..., None].expand(-1, -1, x.shape[-1]))


def check_files(folder: pathlib.Path, names: Sequence[str]) -> None:
    """Raises a ``ValueError`` if a file is missing, or has changed since it was exported."""
    for name in (MANIFEST, *names):
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder}: {name} is missing; give a folder that vlbeit_jax.convert has written"
            )
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        digests = {name: manifest[name]["sha256"] for name in names}
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{folder / MANIFEST} is not the one that vlbeit_jax.convert wrote ({error!r})"
        ) from error
    for name, digest in digests.items():
        if sha256(folder / name) != digest:
            raise ValueError(
                f"{folder / name} is damaged or cut off: its SHA-256 is not the one in "
                f"{MANIFEST}. Export it again"
            )


def read_export(folder: pathlib.Path) -> tuple[dict, dict[str, Tensor]]:
    """Returns config.json and the tensors of a folder, which must be as they were written."""
    from safetensors.torch import load_file

    check_files(folder, (CONFIG, WEIGHTS))
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return config, load_file(folder / WEIGHTS)


def fill(module: nn.Module, tensors: dict[str, Tensor], folder: pathlib.Path) -> None:
    """Loads weights into a module, name by name, and sets evaluation mode."""
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{folder}: the weights do not fit config.json: {error}") from error
    module.eval()


def save_export(model: Backbone, source: pathlib.Path, out: pathlib.Path) -> None:
    """Writes a model as a folder that ``load`` reads, for ``Shared.save_pretrained``.

    Examples and figures of an evaluation stay behind: they belong to the weights in ``source``.
    """
    from safetensors.torch import load_file, save_file

    before = load_file(source / WEIGHTS)
    own = {f"{model.prefix}{name}": value.cpu() for name, value in model.state_dict().items()}
    if new := own.keys() - before.keys():
        raise ValueError(f"{', '.join(sorted(new))}: not in {source / WEIGHTS}; remove them first")
    listed = set(json.loads((source / MANIFEST).read_text(encoding="utf-8")))
    if source.resolve() != out.resolve():
        listed = {name for name in listed if not name.startswith("evaluat")}
        # Of the files that are there, so that no name in a downloaded list leads elsewhere.
        for path in list(source.rglob("*")):
            name = path.relative_to(source).as_posix()
            if name in listed and name not in (CONFIG, WEIGHTS):
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, out / name)
    # ``out`` may be ``source``, whose file is read until the new one is complete.
    save_file(before | own, out / "model.new", {"format": "pt"})
    shutil.copymode(source / WEIGHTS, out / "model.new")
    (out / "model.new").replace(out / WEIGHTS)
    text = json.dumps(model.exported, indent=1, ensure_ascii=False)
    (out / CONFIG).write_text(text + "\n", encoding="utf-8")
    same = all(before[name].equal(value.to(before[name].dtype)) for name, value in own.items())
    if not same and (out / CARD).is_file() and CHANGED not in (out / CARD).read_text("utf-8"):
        with (out / CARD).open("a", encoding="utf-8") as card:
            card.write(f"\n{CHANGED}\n")
    # ``out`` may hold other files, such as those of an editor or of git.
    paths = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*"))}
    entries = {
        name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for name, path in paths.items()
        if name in listed and path.is_file()
    }
    (out / MANIFEST).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def sha256(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file's content."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


VISUAL_TOKENIZERS = {"vqkd": VisualTokenizer, "dalle": DalleEncoder}  # By kind in config.json.


def load(folder: str | pathlib.Path) -> tuple[VLBEiT, VisualTokenizer | DalleEncoder | None]:
    """Loads the model and its visual tokenizer, in evaluation mode.

    The visual tokenizer is None if the model was trained without images, or was imported.

    Raises:
      ValueError: a file is missing, has changed since it was exported, the folder holds a
        fine-tuned model, or the weights do not fit config.json.
    """
    folder = pathlib.Path(folder)
    config, tensors = read_export(folder)
    if "network" in config:
        raise ValueError(f"{folder} holds a fine-tuned model; load it with vlbeit_finetuned.load")
    model = VLBEiT(config["model"])
    visual = config["visual_tokenizer"]
    visual_tokenizer = None if visual is None else VISUAL_TOKENIZERS[visual["kind"]](visual)
    parts = nn.ModuleDict({"model": model})
    if visual_tokenizer is not None:
        parts["visual_tokenizer"] = visual_tokenizer
    fill(parts, tensors, folder)
    model.folder, model.exported = folder, config
    return model, visual_tokenizer
