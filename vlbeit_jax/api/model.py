"""The object that ``vlbeit_jax.load`` returns."""

from vlbeit_jax.api.encoding import Encodes
from vlbeit_jax.api.masks import FillsMasks
from vlbeit_jax.api.predictions import Predicts


class Model(Encodes, FillsMasks, Predicts):
    """A pretrained, imported or fine-tuned model, ready to use.

    Which vector serves which purpose:

    - To compare pictures, or to train a classifier on few of them: ``encode(...).image``, the mean
      of all patches. To find things in a picture: ``patches``.
    - The same for texts: ``text`` and ``words``.
    - Pretraining does not place pictures and texts in one space. To search pictures by texts,
      fine-tune for retrieval (docs/finetune.md) and use ``search``.

    Attributes:
      folder: where it lies.
      step: of its checkpoint.
      config: sizes of its network.
    """

    def __repr__(self) -> str:
        """Names folder, step and sizes."""
        c = self.config
        return (
            f"<Model {self.folder}, step {self.step}: {c.depth} blocks of width {c.width}, "
            f"images of {c.image_size} x {c.image_size}>"
        )
