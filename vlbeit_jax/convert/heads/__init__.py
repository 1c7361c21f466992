"""Heads of fine-tuned networks, as exports hold them; each head is one file.

To export another network, add its file, an entry in ``HEADS``, and its class in
``standalone/vlbeit_finetuned.py``.
"""

import flax.linen as nn

from vlbeit_jax.convert.heads import (
    captioning,
    classification,
    reasoning,
    retrieval,
    segmentation,
    vqa,
)
from vlbeit_jax.convert.heads.base import Head
from vlbeit_jax.models.captioner import Captioner
from vlbeit_jax.models.classifier import Classifier
from vlbeit_jax.models.reasoner import Reasoner
from vlbeit_jax.models.retrieval import DualEncoder
from vlbeit_jax.models.segmenter import Segmenter
from vlbeit_jax.models.vqa import VQA

HEADS: dict[type[nn.Module], Head] = {
    Classifier: classification.HEAD,
    VQA: vqa.HEAD,
    Reasoner: reasoning.HEAD,
    DualEncoder: retrieval.HEAD,
    Captioner: captioning.HEAD,
    Segmenter: segmentation.HEAD,
}
