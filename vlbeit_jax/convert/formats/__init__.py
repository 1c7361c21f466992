"""Formats: one file each, which states what the format can do and how it is read or written.

To add a format, add a file and its entry here.
"""

from vlbeit_jax.convert.formats import beit, beit3, dalle, hf_beit, torch_module, vit, vlmo, vqkd
from vlbeit_jax.convert.formats.base import Export, Import

EXPORTS: dict[str, Export] = {
    "torch": torch_module.EXPORT,
    "hf-beit": hf_beit.EXPORT,
    "vlmo": vlmo.EXPORT,
    "beit3": beit3.EXPORT,
}
IMPORTS: dict[str, Import] = {
    "vlmo": vlmo.IMPORT,
    "beit": beit.IMPORT,
    "beit2": beit.IMPORT_V2,
    "beit3": beit3.IMPORT,
    "vqkd": vqkd.IMPORT,
    "dalle": dalle.IMPORT,
    "clip": vit.IMPORT_CLIP,
    "dino": vit.IMPORT_DINO,
}
