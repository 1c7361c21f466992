"""Features of a pretraining run, for use without training: load once, then images or texts."""

import dataclasses
import pathlib
from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np

from vlbeit_jax.config.common import LoaderConfig, MeshConfig
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.runtime.pretrained import OpenedRun, open_run
from vlbeit_jax.shapes import Float, Tree
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.tasks.features import MEAN, Pooling, image_features, text_features
from vlbeit_jax.training.mesh import make_mesh, put_replicated


@dataclasses.dataclass(frozen=True)
class Features:
    """Vectors of images and texts.

        features = Features.of(open_run(pathlib.Path("RUN")))
        vectors = features.images([path.read_bytes() for path in paths])

    Attributes:
      run: the pretraining run.
      params: parameters, whole on every device.
      place: devices.
      pooling: which states, and how they are pooled.
    """

    run: OpenedRun
    params: Tree
    place: Place
    pooling: Pooling

    @classmethod
    def of(cls, run: OpenedRun, pooling: Pooling = MEAN) -> "Features":
        """Takes the parameters of the run."""
        return cls._with(run, run.params, pooling)

    @classmethod
    def open(cls, folder: pathlib.Path, pooling: Pooling = MEAN) -> "Features":
        """Opens the workdir of a pretraining run.

        Raises:
          UsageError: the folder does not belong to a pretraining run, or has no checkpoint yet.
        """
        return cls.of(open_run(folder), pooling)

    @classmethod
    def of_random_start(cls, run: OpenedRun, seed: int, pooling: Pooling = MEAN) -> "Features":
        """Takes the parameters that a run with this seed would begin with, for comparison."""
        return cls._with(run, nn.unbox(run.model.task.init(jax.random.key(seed))), pooling)

    @classmethod
    def _with(cls, run: OpenedRun, params: Tree, pooling: Pooling) -> "Features":
        mesh = make_mesh(MeshConfig(), jax.local_devices())
        place = Place(run.config.run, LoaderConfig(), mesh, HostShard())
        return cls(run, put_replicated(params, mesh), place, pooling)

    def images(self, encoded: Sequence[bytes], view: str = "squash") -> Float[np.ndarray, "A D"]:
        """Returns a vector for each image.

        Args:
          encoded: files of any format that OpenCV reads.
          view: "squash": the whole image as a square. "crop": the centre.

        Raises:
          ValueError: an image cannot be read; the message has its number.
        """
        records = [{"id": str(number), "image": image} for number, image in enumerate(encoded)]
        model = self.run.model.task.model
        return image_features(model, self.params, records, self.place, self.pooling, view)

    def texts(self, texts: Sequence[str]) -> Float[np.ndarray, "A D"]:
        """Returns a vector for each text.

        Raises:
          UsageError: the run was trained without texts.
        """
        model = self.run.model.task.model
        return text_features(
            model, self.params, texts, self.run.model.text, self.place, self.pooling
        )
