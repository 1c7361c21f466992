"""Formats: one file each, which states what the format can do and how it is read or written.

To add a format, add a file and its entry here.
"""

from vlbeit_jax.convert.finetuned import FineTunedModel
from vlbeit_jax.convert.formats import (
    beit,
    beit3,
    beit3_finetuned,
    beit3_imagenet,
    clip,
    dalle,
    dino,
    hf_beit,
    hf_beit_classifier,
    onnx_graphs,
    torch_finetuned,
    torch_module,
    vlmo,
    vqkd,
)
from vlbeit_jax.convert.formats.base import Export, Import
from vlbeit_jax.convert.source import Run

EXPORTS: dict[str, Export[Run]] = {
    "torch": torch_module.EXPORT,
    "hf-beit": hf_beit.EXPORT,
    "vlmo": vlmo.EXPORT,
    "beit3": beit3.EXPORT,
    "onnx": onnx_graphs.EXPORT,
}
# Of fine-tuned runs; each name is also a format of pretraining runs.
FINE_TUNED_EXPORTS: dict[str, Export[FineTunedModel]] = {
    "torch": torch_finetuned.EXPORT,
    "hf-beit": hf_beit_classifier.EXPORT,
    "onnx": onnx_graphs.FINE_TUNED_EXPORT,
}
IMPORTS: dict[str, Import] = {
    "vlmo": vlmo.IMPORT,
    "beit": beit.IMPORT,
    "beit2": beit.IMPORT_V2,
    "beit3": beit3.IMPORT,
    "beit3-imagenet": beit3_imagenet.IMPORT,
    **beit3_finetuned.IMPORTS,
    "vqkd": vqkd.IMPORT,
    "dalle": dalle.IMPORT,
    "clip": clip.IMPORT,
    "dino": dino.IMPORT,
}
