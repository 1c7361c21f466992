"""VLMo's NLVR2 files, and our exports in a module of VLMo's sizes."""

import pytest
import safetensors.torch
import torch
from safetensors.numpy import save_file

from tests import tiny
from tests.convert.conftest import small_run
from tests.convert.named import randomised, tensor_file
from tests.convert.test_vlmo import (
    DEPTH,
    GRID,
    HEADS,
    HEADS_THERE,
    WIDTH,
    WORDS,
    assert_states,
    largest_differences,
    published_shapes,
)
from vlbeit_jax.convert.formats import EXPORTS, IMPORTS, vlmo_tables
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.convert.read_tensors import read_tensors
from vlbeit_jax.convert.source import read_run
from vlbeit_jax.errors import UsageError


def two_layers(name, inputs, hidden, outputs):
    """Linear map, norm, GELU (which has no tensors) and linear map, numbered as VLMo has them."""
    sizes = {
        "0.weight": (hidden, inputs),
        "0.bias": (hidden,),
        "1.weight": (hidden,),
        "1.bias": (hidden,),
        "3.weight": (outputs, hidden),
        "3.bias": (outputs,),
    }
    return {f"{name}.{part}": shape for part, shape in sizes.items()}


POOLER = {"pooler.dense.weight": (WIDTH, WIDTH), "pooler.dense.bias": (WIDTH,)}
PROJECTION = (WIDTH, WIDTH)
# Of VLMo's modules by their losses: vqa, nlvr2, irtr.
FINE_TUNED = {
    "vqa": POOLER | two_layers("vqa_classifier", WIDTH, 2 * WIDTH, 31),
    "nlvr2": POOLER | two_layers("nlvr2_classifier", 2 * WIDTH, 2 * WIDTH, 2),
    "coco_or_flickr30k": {
        "itc_text_proj.fc.weight": PROJECTION,
        "itc_image_proj.fc.weight": PROJECTION,
        "logit_scale": (),
    },
}


def file_of(task):
    """Names and shapes of a file of VLMo that was fine-tuned for a task."""
    trunk = {name: shape for name, shape in published_shapes().items() if name not in HEADS_THERE}
    types = {vlmo_tables.TYPES: (3, WIDTH)} if task == "nlvr2" else {}
    return trunk | types | FINE_TUNED[task]


@pytest.mark.parametrize("task", FINE_TUNED)
def test_every_fine_tuned_file_gives_its_network(tmp_path, task):
    """Without its head, which the report names."""
    tensors = randomised(file_of(task))
    file = tensor_file(file_of(task), tensors)
    report = IMPORTS["vlmo"].read(file, tmp_path / "x.pt", ImportOptions(), tmp_path / "run")
    heads = {name for name, why in report.dropped.items() if why == "a head that we do not have"}
    assert heads == set(FINE_TUNED[task])
    assert set(tensors) <= {*report.matched, *report.dropped}
    found = read_run(tmp_path / "run").params["encoder/norm/scale"]
    assert (found == tensors["transformer.norm.weight"]).all()


def test_a_file_of_nlvr2_gives_what_single_pictures_use(tmp_path):
    """It has three types: of texts, of the first picture and of the second one."""
    tensors = randomised(published_shapes() | {vlmo_tables.TYPES: (3, WIDTH)})
    path = tmp_path / "nlvr2.safetensors"
    save_file(tensors, path)
    report = IMPORTS["vlmo"].run(path, ImportOptions(), tmp_path / "run")
    assert report.dropped["token_type_embeddings.weight[2]"] == "the type of NLVR2's second picture"
    assert vlmo_tables.TYPES in report.matched
    run = read_run(tmp_path / "run")
    assert (run.params["text_embed/type"] == tensors[vlmo_tables.TYPES][0]).all()
    assert_states(run, tensors, ("pair",))
    swapped = tensors | {
        vlmo_tables.TYPES: tensors[vlmo_tables.TYPES][[0, 2]]
    }  # The second picture's.
    assert largest_differences(run, swapped, "pair")["image"] > 1e-2


@pytest.mark.parametrize("types", [1, 4])
def test_another_number_of_types_is_refused(tmp_path, types):
    shapes = published_shapes() | {vlmo_tables.TYPES: (types, WIDTH)}
    with pytest.raises(UsageError, match=rf"weight is \[{types}, 32\], expected \[2, 32\]"):
        IMPORTS["vlmo"].read(
            tensor_file(shapes), tmp_path / "vlmo.pt", ImportOptions(), tmp_path / "out"
        )


def vlmos_module(longest, table_texts):
    """Parameters and buffers of VLMo's module by its names, for texts of up to ``longest``.

    ``longest`` is VLMo's ``max_text_len``; ``table_texts`` its ``max_text_len_of_initckpt``.
    """
    shapes = published_shapes(indices=False)
    shapes[vlmo_tables.PLACES] = (longest, WIDTH)
    shapes[vlmo_tables.BIASES] = ((2 * GRID - 1) ** 2 + 3 + 2 + 2 * table_texts, DEPTH * HEADS)
    module = torch.nn.Module()
    for name, shape in shapes.items():
        *path, last = name.split(".")
        place = module
        for part in path:
            if not hasattr(place, part):
                place.add_module(part, torch.nn.Module())
            place = getattr(place, part)
        if last == "position_ids":
            place.register_buffer(last, torch.arange(longest)[None])
        else:
            place.register_parameter(last, torch.nn.Parameter(torch.zeros(shape)))
    return module


def documented_line(folder):
    """What docs/convert.md tells VLMo's users to run, for an export in ``folder``."""
    lines = (tiny.TOP / "docs" / "convert.md").read_text().splitlines()
    (line,) = (line.strip() for line in lines if 'load_file("DIR/vlmo' in line)
    return line.replace("DIR", str(folder))


@pytest.mark.parametrize(("table_texts", "longest"), [(196, 40), (16, 9)])
def test_the_documented_line_loads_an_export(tmp_path, table_texts, longest):
    """Into VLMo with its defaults, 196 and 40, and with a table for a shorter model."""
    sizes = {"vocabulary": WORDS, "fused_layers": 1, "text_positions": table_texts}
    run = small_run(tmp_path / "run", positions="relative", **sizes)
    EXPORTS["vlmo"].write(run, tmp_path)
    model = vlmos_module(longest, table_texts)
    names = {"model": model, "safetensors": safetensors}
    loaded = eval(documented_line(tmp_path), names)
    assert not loaded.unexpected_keys
    assert set(loaded.missing_keys) == {*HEADS_THERE, vlmo_tables.PLACES, vlmo_tables.PLACE_IDS}
    state = model.state_dict()
    for name, value in read_tensors(tmp_path / "vlmo.safetensors").tensors.items():
        assert (state[name].numpy() == value).all(), name
    assert (state[vlmo_tables.TYPES].numpy()[1] == run.params["vision_embed/type"]).all()
    # The control: the file as it was, with positions of the export's length.
    with pytest.raises(RuntimeError, match=r"size mismatch for .*position_embeddings\.weight"):
        places = {vlmo_tables.PLACES: torch.zeros(table_texts, WIDTH)}
        model.load_state_dict(state | places, strict=False)
