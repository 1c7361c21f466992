"""VLMo's checkpoints, for models with relative positions (table: ``vlmo_tables``)."""

import pathlib

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert.files import write_safetensors
from vlbeit_jax.convert.formats.base import START, Export, Import
from vlbeit_jax.convert.formats.vlmo_check import WEIGHTS_FILE, check
from vlbeit_jax.convert.formats.vlmo_tables import (
    BIASES,
    INDICES,
    INNER_TYPES,
    PATCH,
    PLACES,
    SECOND_IMAGE,
    TYPES,
    WORDS,
    table,
)
from vlbeit_jax.convert.import_options import (
    ImportOptions,
    check_heads,
    count_matches,
    exact_sqrt,
    grid_of,
    require_shapes,
)
from vlbeit_jax.convert.importing import import_model
from vlbeit_jax.convert.read_tensors import TensorFile
from vlbeit_jax.convert.rules import Report, export
from vlbeit_jax.convert.source import Run
from vlbeit_jax.convert.tables import refuse_beit3
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.layers import LAYER_NORM_EPS
from vlbeit_jax.ops.position import table_rows
from vlbeit_jax.types import Positions

PUBLISHED_TEXTS = 196  # Longest text of VLMo's own bias tables, whatever a model then takes.
SHORTEST = 3  # CLS, one word piece, SEP.
GRID = "grid"  # Our exports note patches per side under this name.


def require(run: Run) -> None:
    """Raises a ``UsageError`` if the model has parts or settings that VLMo does not support."""
    refuse_beit3(run.model, "vlmo")
    if run.model.norm_eps != LAYER_NORM_EPS:
        raise UsageError(
            f"--to=vlmo does not support model.norm_eps={run.model.norm_eps:g}; VLMo's norms use "
            f"{LAYER_NORM_EPS:g}"
        )
    if run.model.positions is not Positions.RELATIVE:
        raise UsageError(
            "--to=vlmo does not support task.model.positions=absolute; VLMo has relative positions"
        )


def write(run: Run, folder: pathlib.Path) -> None:
    """Writes ``vlmo.safetensors``, the state dict under VLMo's names."""
    notes = {"format": "pt", GRID: str(run.model.grid)}
    write_safetensors(folder / WEIGHTS_FILE, export(table(run.model, ()), run.params), notes)


def config_of(file: TensorFile, options: ImportOptions) -> ModelConfig:
    """Infers the model from tensor shapes; the number of visual tokens comes from the flags.

    Raises:
      UsageError: the file does not have VLMo's names, or its bias table is for other sizes.
    """
    shapes, first = file.shapes, "transformer.blocks.0"
    ranks = {
        f"{PATCH}.weight": 4,
        WORDS: 2,
        BIASES: 2,
        f"{first}.mlp_imag.fc1.weight": 2,
        f"{first}.norm1.weight": 1,
    }
    kernel, (vocabulary, _), (_, columns), (ffn_width, _), _ = require_shapes(
        "VLMo checkpoint", shapes, ranks
    )
    width, _, patch_size, _ = kernel
    depth = count_matches(shapes, r"transformer\.blocks\.\d+\.norm1\.weight")
    if columns % depth:
        raise UsageError(
            f"not a VLMo checkpoint: {BIASES} has {columns} columns, which {depth} blocks do not "
            "divide"
        )
    grid, text_positions = _sizes(file, patch_size, options)
    return options.model_config(
        image_size=grid * patch_size,
        patch_size=patch_size,
        width=width,
        depth=depth,
        heads=check_heads(width, columns // depth),
        ffn_width=ffn_width,
        fused_layers=count_matches(shapes, r"transformer\.blocks\.\d+\.mlp_vl\.fc1\.weight"),
        text_positions=text_positions,
        positions=Positions.RELATIVE,
        layer_scale=0.1 if f"{first}.gamma_1" in shapes else 0.0,
        vocabulary=vocabulary,
    )


def _sizes(file: TensorFile, patch_size: int, options: ImportOptions) -> tuple[int, int]:
    """Returns patches per side and the longest text.

    Images and texts share the rows of one bias table. A smaller image would leave room for longer
    texts, so one of the two must be known: from the file, from a flag, or as VLMo published it.
    """
    shapes, rows = file.shapes, file.shapes[BIASES][0]
    grid = int(file.metadata.get(GRID, 0))
    if not grid and INDICES[0] in shapes:
        grid = exact_sqrt(shapes[INDICES[0]][0] - 1)
    if grid:
        grids = [options.agree("image_size", grid * patch_size) // patch_size]
    elif options.image_size is not None:
        grids = [grid_of(options.image_size, patch_size)]
    else:
        grids = range(1, rows)
    if options.text_positions:
        lengths = [options.text_positions]
    else:
        lengths = [PUBLISHED_TEXTS, *shapes.get(PLACES, ())[:1]]
    fits = {each: (rows - table_rows(each, 0)) // 2 for each in grids}
    if options.text_positions or not grid:
        fits = {each: texts for each, texts in fits.items() if texts in lengths}
    fits = {
        each: texts
        for each, texts in fits.items()
        if table_rows(each, texts) == rows and texts >= SHORTEST
    }
    if len(fits) == 1:
        return next(iter(fits.items()))
    tried = fits or ([] if len(grids) > 1 else grids)
    images = " or ".join(str(each * patch_size) for each in tried) or "any size"
    raise UsageError(
        f"{BIASES} has {rows} rows, which {'fit' if fits else 'do not fit'} images of {images} "
        f"with texts of {' or '.join(map(str, lengths))} word pieces. Give --image_size and "
        "--text_positions as the file was trained with"
    )


def fold_inner_type(file: TensorFile) -> TensorFile:
    """Returns the file with BERT's inner type, always row 0, added to the words."""
    tensors = file.tensors
    if INNER_TYPES not in tensors:
        return file
    words = tensors[WORDS] + tensors[INNER_TYPES][0]
    return file.changed({**tensors, WORDS: words}, f"row 0 of {INNER_TYPES} is added to {WORDS}")


def split_types(file: TensorFile) -> TensorFile:
    """Returns the file with two types, text and image; a third one gets a name of its own.

    VLMo's NLVR2 models have a type for the second of two pictures. It starts as a copy of the
    first picture's, which is the one that stands alone elsewhere.
    """
    tensors = file.tensors
    if TYPES not in tensors or tensors[TYPES].shape[:1] != (3,):
        return file
    return file.changed({**tensors, TYPES: tensors[TYPES][:2], SECOND_IMAGE: tensors[TYPES][2]})


def _read(
    file: TensorFile, path: pathlib.Path, options: ImportOptions, out: pathlib.Path
) -> Report:
    config = config_of(file, options)
    file = split_types(fold_inner_type(file))
    return import_model(path, file, table(config, file.tensors), config, out)


EXPORT = Export(
    takes="pretraining runs",
    exact="states of images, texts and pairs, for task.model.positions=relative",
    needs="relative positions",
    drops="mask token and both heads, of which VLMo has none or others",
    peers=(),
    require=require,
    write=write,
    check=check,
)
IMPORT = Import(
    exact="states of images, texts and pairs",
    gives=START,
    drops="its heads; the mask token and our heads are initialised",
    read=_read,
    flags=("image_size", "text_positions", "codes"),
)
