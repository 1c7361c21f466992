"""Fine-tuning starts from any run with the same backbone, and at another resolution."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tests.convert.test_beit import DEPTH, FFN, HEADS, PATCH, SIDE, WIDTH, imported, published
from tests.tasks.labelled_world import image_config, prepare
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.data.identity import KEYS
from vlbeit_jax.data.splits import STARTED_FROM, write_seen
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.classifier import Classifier
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks.backbone_start import backbone_start
from vlbeit_jax.training.adapters import ResizeRelative
from vlbeit_jax.training.param_names import leaf_name
from vlbeit_jax.training.saved_run import newest_step, restore
from vlbeit_jax.training.state import declarations
from vlbeit_jax.training.warm_start import Origin, plan_warm_start
from vlbeit_jax.types import Kind, Modality, Positions

MODELS = {
    "absolute": {},
    "relative": {"positions": Positions.RELATIVE},
    "decoupled": {"decoupled": True, "fused_layers": 0, "sub_norm": True, "layer_scale": 0.0},
}


def model(image_size=32, **changed):
    return ModelConfig(
        **{
            "image_size": image_size,
            "patch_size": 8,
            "width": 16,
            "depth": 2,
            "heads": 2,
            "ffn_width": 32,
            "fused_layers": 1,
            "text_positions": 8,
            "vocabulary": 300,
            "codes": 16,
        }
        | changed
    )


def shapes(network):
    tree = declarations(lambda key: network.init(key, method="init_all")["params"]).shapes
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {leaf_name(path): tuple(leaf.shape) for path, leaf in leaves}


def classifier(config, modality):
    return Classifier(config, 5, modality, "mean")


@pytest.mark.parametrize("modality", Modality)
@pytest.mark.parametrize("changed", MODELS.values(), ids=MODELS)
def test_every_backbone_is_a_start(changed, modality):
    larger = model(48, **changed)
    target = shapes(classifier(larger, modality))
    rules = backbone_start(larger, (modality,), fresh=("head/*",))
    plan = plan_warm_start(shapes(VLBEiT(model(**changed))), target, rules)
    origins = {each.name: each.origin for each in plan}
    assert origins.keys() == target.keys()
    fresh = {name for name, origin in origins.items() if origin is Origin.FRESH}
    assert fresh == {name for name in target if name.startswith("head/")}
    adapted = {name for name, origin in origins.items() if origin is Origin.ADAPTED}
    if "positions" in changed:
        assert adapted == {"encoder/relative_positions"}
    else:
        assert adapted == ({"vision_embed/positions"} if modality is Modality.VISION else set())
    # A fine-tuned network of the same modality is a start too, whatever its classes.
    again = plan_warm_start(shapes(Classifier(larger, 7, modality, "cls")), target, rules)
    assert {each.origin for each in again} == {Origin.SAME, Origin.FRESH}


def test_a_start_with_more_blocks_or_another_width_is_refused():
    target = shapes(classifier(model(), Modality.VISION))
    rules = backbone_start(model(), (Modality.VISION,), fresh=("head/*",))
    with pytest.raises(UsageError, match="encoder/block_2/attention/out.*nothing here"):
        plan_warm_start(shapes(VLBEiT(model(depth=3))), target, rules)
    with pytest.raises(UsageError, match="vision_embed/cls: "):
        plan_warm_start(shapes(VLBEiT(model(width=32))), target, rules)


STILL = {"peak_lr": 1e-12, "end_lr": 0.0, "warmup_steps": 0, "weight_decay": 0.0}


def test_imported_beit_weights_are_fine_tuned_at_another_resolution(tmp_path):
    imported(tmp_path, published(fine_tuned=False), "beit", image_size=SIDE, heads=HEADS)
    write_seen(tmp_path / "run", {what: np.arange(3, dtype=np.uint64) for what in KEYS})
    sets = prepare(tmp_path / "data", "pictures", Kind.LABELLED_IMAGES)
    config = image_config(
        sources=sets,
        steps=1,
        optimizer=STILL,
        run={"start_from": str(tmp_path / "run"), "evaluate_every": 0},
    )
    source = json.loads((tmp_path / "run" / "config.json").read_text())["task"]["model"]
    assert (source["width"], source["depth"], source["ffn_width"]) == (WIDTH, DEPTH, FFN)
    own = ModelConfig(**source | {"image_size": SIDE + 2 * PATCH, "drop_path": 0.0})
    own = dataclasses.replace(own, positions=Positions(own.positions))
    state = train(tiny.changed(config, task={"model": own}), tmp_path / "ft")

    start = json.loads((tmp_path / "ft" / "start.json").read_text())
    assert start["from"] == str(tmp_path / "run") and start["weights"] == "raw"
    assert start["imported_from"] == "beit.pth"
    assert list(start["adapted"]) == ["encoder/relative_positions"]
    assert start["fresh"] == sorted(name for name in by_name(state.params) if "head/" in name)
    assert "language_head/kernel" in start["dropped"]
    assert (tmp_path / "ft" / STARTED_FROM / "pictures.npy").is_file()

    loaded = ModelConfig(**source | {"positions": own.positions})
    init = declarations(lambda key: VLBEiT(loaded).init(key, method="init_all")["params"]).shapes
    step = newest_step(tmp_path / "run")
    before = by_name(restore(tmp_path / "run", step, {"params": init})["params"])
    for name, value in by_name(state.params).items():
        if name in start["same"]:
            np.testing.assert_allclose(value, before[name], atol=1e-8)
    adapter = ResizeRelative(own.text_positions, own.text_positions)
    table = by_name(state.params)["encoder/relative_positions"]
    expected = adapter(np.asarray(before["encoder/relative_positions"]), table.shape)
    np.testing.assert_allclose(table, expected, atol=1e-6)
    log = (tmp_path / "ft" / "log.txt").read_text()
    assert "1 adapted, 4 fresh" in log


def by_name(tree):
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_at_an_equal_resolution_the_encoder_computes_the_same():
    """Without the final norm, to the last bit: nothing but the head is new."""
    config = model(drop_path=0.0)
    source = jax.jit(lambda key: VLBEiT(config).init(key, method="init_all"))(jax.random.key(0))
    source = jax.tree.map(lambda box: box.value, source, is_leaf=lambda x: hasattr(x, "info"))
    image = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8))
    states = [
        jax.jit(
            lambda source, network=network: network.apply(
                source, Inputs(image=image), method=lambda m, x: m.backbone(x, keep=(1,)).kept[0]
            )
        )(source)
        for network in (VLBEiT(config), classifier(config, Modality.VISION))
    ]
    np.testing.assert_array_equal(*states)
