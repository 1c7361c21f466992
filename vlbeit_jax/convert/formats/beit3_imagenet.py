"""Imports BEiT-3's ``BEiT3ForImageClassification``, fine-tuned on ImageNet, as a fine-tuned run.

Unlike BEiT-3's other models, it takes pixels that are normalised by ImageNet's mean and deviation.
According to BEiT-3's published guide, its view is the centre of an image whose shorter side is the
model's image size.
"""

import pathlib

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.convert.formats.base import Import
from vlbeit_jax.convert.formats.beit import fold_pixels
from vlbeit_jax.convert.formats.beit3 import config_of
from vlbeit_jax.convert.formats.beit3_heads import classification_table
from vlbeit_jax.convert.formats.beit3_tables import EMBED
from vlbeit_jax.convert.import_options import ImportOptions, require_shapes
from vlbeit_jax.convert.importing import import_network
from vlbeit_jax.convert.read_tensors import TensorFile
from vlbeit_jax.convert.rules import Report
from vlbeit_jax.data.class_names import read_class_names
from vlbeit_jax.data.splits import NOTHING_SEEN, write_seen
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.run_folder import write_config
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.assets import write_classes
from vlbeit_jax.tasks.image_classification import ImageClassification
from vlbeit_jax.training.saved_run import IMPORTED_STEP
from vlbeit_jax.training.state import declarations

HEAD = {"fc_norm.weight": 1, "head.weight": 2, "head.bias": 1}
GIVES = "a fine-tuned run of task image_classification: to evaluate, to predict with, to export"


def _class_names(options: ImportOptions, count: int) -> tuple[str, ...]:
    if options.classes is None:
        return tuple(map(str, range(count)))
    names = read_class_names(options.classes)
    if len(names) != count:
        raise UsageError(
            f"--classes={options.classes} holds {len(names)} names, but the file has {count} "
            "classes; give one name for each"
        )
    return names


def _read(
    file: TensorFile, path: pathlib.Path, options: ImportOptions, out: pathlib.Path
) -> Report:
    _, (count, _), _ = require_shapes("BEiT-3 classifier of images", file.shapes, HEAD)
    config = config_of(file, options)
    names = _class_names(options, count)
    task = ImageClassification(model=config, classes=count, class_names=names)
    file = fold_pixels(file, f"{EMBED}.proj.weight", f"{EMBED}.proj.bias")

    def describe(folder: pathlib.Path) -> None:
        write_config(folder, Config(task=task, run=RunConfig(steps=IMPORTED_STEP)))
        write_classes(folder, names)
        # The file does not say what the weights were trained on, so no set counts as seen.
        write_seen(folder, NOTHING_SEEN)

    shapes = declarations(task.init).shapes
    return import_network(path, file, classification_table(config), shapes, describe, out)


IMPORT = Import(
    exact="logits of classes; the normalisation of pixels is folded into the patch embedding",
    gives=GIVES,
    drops="the experts of texts",
    read=_read,
    flags=("heads", "classes"),
)
