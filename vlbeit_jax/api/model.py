"""The object that ``vlbeit_jax.load`` returns."""

from vlbeit_jax.api.encoding import Encodes
from vlbeit_jax.api.masks import FillsMasks
from vlbeit_jax.api.predictions import Predicts


class Model(Encodes, FillsMasks, Predicts):
    """A pretrained, imported or fine-tuned model, ready to use.

    Which vector serves which purpose:

    - To train a classifier on pictures: ``encode(...).image``, the mean of all patches. On emoji,
      the sample's finds .529 of the classes by a linear classifier and .439 by the vote of 20
      nearest neighbours; ``image_cls`` finds .504 and .464 (docs/python.md).
    - To find things in a picture: ``patches``.
    - For texts: ``text`` (.406 and .336; ``text_cls`` .373 and .302) and ``words``.
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
