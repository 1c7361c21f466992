"""Pretraining: masked prediction on images, texts and pairs by one Multiway Transformer."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from vlbeit_jax.config import Config
from vlbeit_jax.config_schema import fixed_settings
from vlbeit_jax.data.examples.masked import masked_specs
from vlbeit_jax.models.params import Tree
from vlbeit_jax.models.visual_tokenizer import Tokenizer, cast_tokenizer, tokenizer_shapes
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.objectives.masked_prediction import MaskedPrediction
from vlbeit_jax.tasks import base
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER, VISUAL_TOKENIZER
from vlbeit_jax.tasks.open_pretrain import OpenPretrain
from vlbeit_jax.tasks.open_vqkd import make_tokenizer
from vlbeit_jax.tasks.visual_tokens import describe_visual_tokens
from vlbeit_jax.tasks.vqkd import model_problems
from vlbeit_jax.training.schedule import Schedule, schedule_problems, stream_problems
from vlbeit_jax.training.warm_start import WarmStart
from vlbeit_jax.types import Special, Stream


@dataclasses.dataclass(frozen=True)
class Pretrain:
    """The task; see ``tasks.base.Task``.

    Attributes:
      config: the whole configuration.
      tokenizer: the visual tokenizer's network; None: the one that ``config.visual_tokenizer``
        describes. ``resolve`` takes it from the folder that is named.
    """

    config: Config
    tokenizer: Tokenizer | None = None

    @property
    def used_streams(self) -> tuple[Stream, ...]:
        """The streams of the schedule, in the order in which their gradients are added."""
        used = Schedule.parse(self.config.run.schedule).streams
        return tuple(stream for stream in Stream if stream in used)

    def problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        model, schedule = self.config.model, self.config.run.schedule
        yield from model_problems(model, "config.model")
        if model.fused_layers > model.depth:
            yield (
                f"config.model.fused_layers={model.fused_layers} must be at most "
                f"model.depth={model.depth}"
            )
        if model.decoupled and model.fused_layers:
            yield (
                f"config.model.fused_layers={model.fused_layers} must be 0 with model.decoupled: "
                "BEiT-3 has no vision-language expert"
            )
        if model.pad != Special.PAD:
            yield (
                f"config.model.pad={model.pad} must be {int(Special.PAD)}: data are padded with it "
                "here"
            )
        wrong = list(schedule_problems(schedule, tuple(Stream)))
        yield from wrong
        for stream in () if wrong else self.used_streams:
            yield from self._stream_problems(stream)

    def _stream_problems(self, name: Stream) -> Iterable[str]:
        model, data = self.config.model, self.config.data
        stream, path = getattr(data, name), f"config.data.{name}"
        yield from stream_problems(stream, name, self.config.run.accumulate)
        if name.has_image:
            masked = stream.num_masked_patches
            if masked > model.patches:
                yield f"{path}.num_masked_patches={masked} of only {model.patches} patches"
            if 0 < masked < stream.mask_block:
                yield (
                    f"{path}.mask_block={stream.mask_block} is larger than "
                    f"num_masked_patches={masked}"
                )
            if not data.visual_tokenizer:
                yield (
                    "config.data.visual_tokenizer is empty: give the workdir of a finished VQ-KD "
                    "run or an imported tokenizer"
                )
            if data.visual_tokens and not stream.views:
                yield (
                    f"{path}.views=0: tokens are cached for a number of views of each image; give "
                    "that of data.visual_tokens"
                )
        if name.has_text:
            if not 3 <= stream.text_length <= model.text_positions:
                yield (
                    f"{path}.text_length={stream.text_length} must be in [3, "
                    f"model.text_positions={model.text_positions}]"
                )
            if not data.text_tokenizer:
                yield (
                    "config.data.text_tokenizer is empty: a folder made by "
                    "vlbeit_jax.text_tokenizer"
                )

    def must_match(self) -> dict[str, Any]:
        """Returns the model's settings, and each stream's batch size and mixture."""
        found = fixed_settings(self.config.model, "model")
        for stream in Schedule.parse(self.config.run.schedule).streams:
            found |= base.stream_settings(self.config, stream)
        return found

    def resolve(self) -> "Pretrain":
        """Returns the task with the visual tokenizer of the folder that is named.

        Raises:
          UsageError: there is no visual tokenizer in it.
        """
        if not any(stream.has_image for stream in self.used_streams):
            return self
        tokenizer = describe_visual_tokens(self.config.data.visual_tokenizer)
        return dataclasses.replace(self, tokenizer=tokenizer)

    def init(self, key: jax.Array) -> Tree:
        """Returns the parameters of every path, boxed with their ``ParamInfo``."""
        return VLBEiT(self.config.model).init(key, method="init_all")["params"]

    def streams(self) -> Mapping[str, base.Stream]:
        """Returns the streams of the schedule."""
        return {str(stream): self._stream(stream) for stream in self.used_streams}

    def _stream(self, name: Stream) -> base.Stream:
        model, data = self.config.model, getattr(self.config.data, name)
        image_size = model.image_size if name.has_image else 0
        cached = bool(self.config.data.visual_tokens)
        return base.Stream(
            objective=MaskedPrediction(name, VLBEiT(model), self._tokenizer()),
            example=masked_specs(data, image_size, name.has_text, cached),
            batch_size=data.batch_size,
            tokens=(model.patches + 1) * name.has_image + data.text_length * name.has_text,
        )

    def frozen(self) -> Tree:
        """Returns the shapes of the visual tokenizer, if the step computes visual tokens."""
        needed = any(stream.has_image for stream in self.used_streams)
        if not needed or self.config.data.visual_tokens:
            return {}
        tokenizer = self._tokenizer()
        return jax.eval_shape(
            lambda frozen: cast_tokenizer(tokenizer, frozen), tokenizer_shapes(tokenizer)
        )

    def warm_start(self) -> WarmStart:
        """Returns no rules: a start must have the same parameters."""
        return WarmStart()

    def open(self, folder: Path | None = None) -> OpenPretrain:
        """Opens the tokenizers; from a run's folder, those that it holds.

        Raises:
          UsageError: one is missing or does not fit the model.
        """
        data = self.config.data
        if folder is None:
            streams = self.used_streams
            return OpenPretrain(self, streams, data.text_tokenizer, data.visual_tokenizer)
        text, visual = folder / TEXT_TOKENIZER, folder / VISUAL_TOKENIZER
        streams = [
            stream
            for stream in Stream
            if (not stream.has_text or text.is_dir()) and (not stream.has_image or visual.is_dir())
        ]
        return OpenPretrain(self, streams, text, visual)

    def _tokenizer(self) -> Tokenizer:
        return self.tokenizer or make_tokenizer(self.config.visual_tokenizer)
