"""A pretraining model with its tokenizers but without training data: what pretraining, evaluation and the report share."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from vlbeit_jax.config import Config, StreamConfig
from vlbeit_jax.data.examples import MakeExample
from vlbeit_jax.data.pipeline import Share, evaluation_batches
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.masked import Scores
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.objectives.masked_prediction import MaskedPrediction
from vlbeit_jax.tasks.scoring import score
from vlbeit_jax.tasks.visual_tokens import keep_copy, open_visual_tokens
from vlbeit_jax.training.sharding import replicated
from vlbeit_jax.types import Stream

TEXT_TOKENIZER, VISUAL_TOKENIZER = "text_tokenizer", "visual_tokenizer"
Tree = Any


class MaskedModel:
    """The network, an objective per stream, and the tokenizers that give inputs and targets.

    Attributes:
      config: the whole configuration.
      text: the text tokenizer; None if no stream has text.
      visual: the visual tokenizer; None if no stream has images.
      objectives: by stream.
      frozen: parameters of the visual tokenizer.
    """

    def __init__(self, config: Config, streams: Sequence[Stream], text_tokenizer: str | Path, visual_tokenizer: str | Path):
        """Opens the tokenizers that the streams need, and checks that they fit the model.

        Raises:
          UsageError: one is missing or does not fit.
        """
        self.config = config
        self.network = VLBEiT(config.model)
        self.text = TextTokenizer(text_tokenizer) if any(stream.has_text for stream in streams) else None
        self.visual = open_visual_tokens(visual_tokenizer) if any(stream.has_image for stream in streams) else None
        self._check_fit()
        tokenizer = self.visual.tokenizer if self.visual else None
        self.objectives = {stream: MaskedPrediction(stream, self.network, tokenizer) for stream in streams}
        self.frozen: Tree = self.visual.frozen if self.visual else {}

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the tokenizers."""
        found = {TEXT_TOKENIZER: self.text, VISUAL_TOKENIZER: self.visual}
        return {name: tokenizer.fingerprint for name, tokenizer in found.items() if tokenizer}

    def stream_config(self, stream: Stream) -> StreamConfig:
        """The stream's part of the configuration."""
        return getattr(self.config.data, stream)

    def init_params(self, key: jax.Array) -> Tree:
        """Fresh parameters of every path, boxed with their logical axes."""
        return self.network.init(key, method="init_all")["params"]

    def abstract_params(self) -> Tree:
        """Shapes of the parameters, each on one device of this process: what a checkpoint is restored into."""
        place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shapes = nn.unbox(jax.eval_shape(self.init_params, jax.random.key(0)))
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes)

    def make_example(self, stream: Stream, augment: bool) -> MakeExample:
        """How this stream's records become examples."""
        model = self.config.model
        image_size, tokenizer = model.image_size if stream.has_image else 0, self.text if stream.has_text else None
        return MakeExample(self.stream_config(stream), image_size, model.grid, tokenizer, augment)

    def score(
        self, stream: Stream, params: Tree, records: Sequence, mesh: Mesh, *, draws: int = 1, batches: int = 0, share: Share = Share()
    ) -> dict[str, Scores]:
        """Scores of each term of a stream over some records; masks depend on the seed and the place of a record alone."""
        config = self.config
        found = evaluation_batches(
            records, self.make_example(stream, False), self.stream_config(stream).batch_size, config.run.seed,
            draws=draws, batches=batches, share=share, data=config.data,
        )  # fmt: skip
        return score(self.objectives[stream], params, jax.device_put(self.frozen, replicated(mesh)), found, mesh)

    def keep_tokenizers(self, workdir: Path) -> None:
        """Copies both tokenizers into a run, so that it can be used without the folders that they came from."""
        if self.text:
            shutil.copytree(self.text.folder, workdir / TEXT_TOKENIZER, dirs_exist_ok=True)
        if self.visual:
            keep_copy(self.visual, workdir / VISUAL_TOKENIZER)

    def _check_fit(self) -> None:
        model = self.config.model
        if self.text and self.text.vocabulary != model.vocabulary:
            raise UsageError(
                f"the text tokenizer in {self.text.folder} has {self.text.vocabulary} pieces, but model.vocabulary={model.vocabulary}"
            )
        if self.visual:
            visual = self.visual.config.visual_tokenizer
            for name in ("codes", "image_size", "patch_size"):
                if getattr(visual, name) != getattr(model, name):
                    raise UsageError(
                        f"the visual tokenizer in {self.visual.folder} has {name}={getattr(visual, name)}, but "
                        f"model.{name}={getattr(model, name)}"
                    )
