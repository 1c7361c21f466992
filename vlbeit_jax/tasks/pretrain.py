"""Pretraining: masked prediction on images, texts and pairs by one Multiway Transformer."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import jax

from vlbeit_jax.config.networks import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.config.probes import ProbeConfig
from vlbeit_jax.config.schema import section, setting
from vlbeit_jax.config.streams import (
    ImageStreamConfig,
    PairStreamConfig,
    StreamConfig,
    TextStreamConfig,
)
from vlbeit_jax.data.examples.masked import masked_specs
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.visual_tokenizer import Tokenizer, cast_tokenizer, tokenizer_shapes
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.objectives.masked_prediction import TERMS, MaskedPrediction
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import base
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER, VISUAL_TOKENIZER
from vlbeit_jax.tasks.backbone_start import adapted_positions
from vlbeit_jax.tasks.fitting import fitted
from vlbeit_jax.tasks.open_pretrain import OpenPretrain
from vlbeit_jax.tasks.open_vqkd import make_tokenizer
from vlbeit_jax.tasks.text_problems import padding_problems, text_problems
from vlbeit_jax.tasks.visual_tokens import describe_visual_tokens
from vlbeit_jax.training.schedule import Schedule, schedule_problems
from vlbeit_jax.training.warm_start import WarmStart
from vlbeit_jax.types import Modality


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrain:
    """The task; see ``tasks.base.Task``.

    Attributes:
      opened_tokenizer: the network of the visual tokenizer that ``resolve`` has read; None: use
        ``tokenizer_model``.
    """

    kind: ClassVar[str] = "pretrain"

    schedule: str = setting(
        "image+text+pair",
        "streams of each step over a cycle: 'image,text,pair' alternates, '+' joins",
    )
    model: ModelConfig = section(ModelConfig, "Multiway Transformer")
    image: ImageStreamConfig = section(ImageStreamConfig, "images alone")
    text: TextStreamConfig = section(TextStreamConfig, "texts alone, packed into full rows")
    pair: PairStreamConfig = section(
        lambda: PairStreamConfig(crop_scale=0.5, text_length=59, masked_text=0.5),
        "images with a caption",
    )
    # Both tokenizers are recognised by their fingerprints, so their folders may move.
    text_tokenizer: str = setting("", "folder made by vlbeit_jax.text_tokenizer", may_change=True)
    visual_tokenizer: str = setting(
        "",
        "workdir of a finished VQ-KD run, or folder of an imported tokenizer",
        may_change=True,
    )
    visual_tokens: str = setting(
        "",
        "folder made by vlbeit_jax.keep_tokens; empty: visual tokens are computed in every step",
        may_change=True,
    )
    fresh: tuple[str, ...] = setting(
        (),
        "parameters that are initialised randomly although run.start_from is given, where * "
        "matches any characters: vision_head/* with another visual tokenizer; text_embed/words and "
        "language_head/* with another text tokenizer",
        may_change=True,
    )
    probes: ProbeConfig = section(ProbeConfig, "probes of frozen features during the run")
    tokenizer_model: VisualTokenizerConfig = section(
        VisualTokenizerConfig,
        "VQ-KD's encoder, for compile and benchmark; a run reads it from visual_tokenizer",
        may_change=True,
    )
    opened_tokenizer: Tokenizer | None = None

    @property
    def used_streams(self) -> tuple[str, ...]:
        """The streams of the schedule, in the order in which their gradients are added."""
        used = Schedule.parse(self.schedule).streams
        return tuple(stream for stream in TERMS if stream in used)

    @property
    def uses_images(self) -> bool:
        """Whether a stream of the schedule has images."""
        return any(
            isinstance(getattr(self, stream), ImageStreamConfig) for stream in self.used_streams
        )

    def problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        yield from schedule_problems(self.schedule, tuple(TERMS))

    def training_problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        for problem in padding_problems(self.model):
            yield (
                f"{problem}; for a start from BEiT-3, set "
                "config.task.fresh=text_embed/words,language_head/* and, if the schedule has "
                "texts, a text tokenizer made here (docs/adapt.md)"
            )
        yield from self.probes.training_problems()
        for name in self.used_streams:
            stream = getattr(self, name)
            yield from stream.training_problems(name)
            if isinstance(stream, ImageStreamConfig):
                yield from self._image_problems(name, stream)
            if isinstance(stream, TextStreamConfig):
                yield from text_problems(
                    name, stream.text_length, self.model, self.text_tokenizer, has_start=False
                )

    def _image_problems(self, name: str, stream: ImageStreamConfig) -> Iterable[str]:
        masked = stream.num_masked_patches
        # Without a visual tokenizer, the grid may not be known; then the last message is enough.
        patches = self.model.patches if self.model.patch_size else masked
        if masked > patches:
            yield f"{name}.num_masked_patches={masked} of only {patches} patches"
        if 0 < masked < stream.mask_block:
            yield (
                f"{name}.mask_block={stream.mask_block} is larger than num_masked_patches={masked}"
            )
        if not self.visual_tokenizer:
            yield (
                "visual_tokenizer is empty: give the workdir of a finished VQ-KD run, or the "
                "folder of an imported tokenizer"
            )
        if self.visual_tokens and not stream.views:
            yield (
                f"{name}.views=0: tokens are cached for a number of views of each image; set views "
                "to the number that vlbeit_jax.keep_tokens was given"
            )

    def resolve(self) -> "Pretrain":
        """Returns the task with the visual tokenizer of the folder that is named.

        Raises:
          UsageError: there is no visual tokenizer in it.
        """
        if not self.uses_images:
            return self
        tokenizer = describe_visual_tokens(self.visual_tokenizer)
        return dataclasses.replace(self, opened_tokenizer=tokenizer)

    def init(self, key: jax.Array) -> Tree:
        """Returns the parameters of every path, boxed with their ``ParamInfo``."""
        return VLBEiT(self.model).init(key, method="init_all")["params"]

    def streams(self) -> Mapping[str, base.Stream]:
        """Returns the streams of the schedule."""
        return {name: self._stream(name, getattr(self, name)) for name in self.used_streams}

    def _stream(self, name: str, stream: StreamConfig) -> base.Stream:
        model = self.model
        image_tokens = model.patches + 1 if isinstance(stream, ImageStreamConfig) else 0
        text_tokens = stream.text_length if isinstance(stream, TextStreamConfig) else 0
        return base.Stream(
            objective=MaskedPrediction(name, VLBEiT(model), self._tokenizer()),
            example=masked_specs(stream, model.image_size, bool(self.visual_tokens)),
            batch_size=stream.batch_size,
            tokens=image_tokens + text_tokens,
        )

    def frozen(self) -> Tree:
        """Returns the shapes of the visual tokenizer, if the step computes visual tokens.

        Raises:
          UsageError: ``tokenizer_model`` is used, and does not cut images as ``model`` does.
        """
        if not self.uses_images or self.visual_tokens:
            return {}
        tokenizer, described = self._tokenizer(), self.tokenizer_model
        if self.opened_tokenizer is None and described.grid != self.model.grid:
            raise UsageError(
                f"config.task.tokenizer_model cuts images of {described.image_size} px into "
                f"{described.grid} x {described.grid} patches, but config.task.model cuts images "
                f"of {self.model.image_size} px into {self.model.grid} x {self.model.grid}; "
                "set tokenizer_model.image_size and patch_size"
            )
        return jax.eval_shape(
            lambda frozen: cast_tokenizer(tokenizer, frozen), tokenizer_shapes(tokenizer)
        )

    def warm_start(self) -> WarmStart:
        """Returns the rules: positions are adapted; all but ``fresh`` must match."""
        return WarmStart(fresh=self.fresh, adapt=adapted_positions(self.model, tuple(Modality)))

    def open(self, folder: Path | None = None) -> OpenPretrain:
        """Opens the tokenizers; from a run's folder, those that it holds, for all their streams.

        Raises:
          UsageError: one is missing or does not fit the model.
        """
        if folder is None:
            return self.open_for(self.used_streams)
        sections = {name: fitted(getattr(self, name), self.model) for name in TERMS}
        text, visual = folder / TEXT_TOKENIZER, folder / VISUAL_TOKENIZER
        streams = [
            name
            for name in TERMS
            if (not isinstance(getattr(self, name), TextStreamConfig) or text.is_dir())
            and (not isinstance(getattr(self, name), ImageStreamConfig) or visual.is_dir())
        ]
        return OpenPretrain(dataclasses.replace(self, **sections), streams, text, visual)

    def open_for(self, streams: Iterable[str]) -> OpenPretrain:
        """Opens the tokenizers that the settings name, as far as some streams need them."""
        return OpenPretrain(self, tuple(streams), self.text_tokenizer, self.visual_tokenizer)

    def _tokenizer(self) -> Tokenizer:
        return self.opened_tokenizer or make_tokenizer(self.tokenizer_model)
