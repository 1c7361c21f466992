"""Teachers' files that tell less, or more, than the weights: open_clip's, DINO's and older ones."""

import argparse
import dataclasses
import json

import numpy as np
import torch

from tests import tiny
from tests.convert.test_teachers import (
    clip_network,
    dino_names,
    dino_network,
    features,
    imported,
    our_features,
)
from vlbeit_jax.convert.formats import IMPORTS
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.tasks import teachers


def test_a_wrong_activation_moves_the_features(tmp_path):
    """By 0.6% of the largest in two layers of random weights: 1,000 times what rounding does."""
    network = clip_network(quick=False)
    folder = imported("clip", network, tmp_path, "gelu")
    found, wanted = our_features(folder)[0], features("clip", network)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()
    wrong, _ = our_features(folder, activation="quick_gelu")
    assert np.abs(wrong - wanted).max() > 3e-3 * np.abs(wanted).max()


def test_dinos_whole_checkpoint_gives_its_teacher(tmp_path):
    """As ``main_dino.py`` saves it; the student, another network here, is not what is read."""
    network, wanted = dino_network(), dino_names(dino_network())
    heads = {name: value for name, value in wanted.items() if name.startswith("head.")}
    of_backbone = {f"backbone.{name}": wanted[name] for name in wanted.keys() - heads.keys()}
    teacher = of_backbone | heads
    checkpoint = {
        "student": {f"module.{name}": value + 1 for name, value in teacher.items()},
        "teacher": teacher,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_base", patch_size=16),
        "dino_loss": {"center": torch.zeros(1, 3)},
    }
    torch.save(checkpoint, tmp_path / "dino.pth")
    report = IMPORTS["dino"].run(tmp_path / "dino.pth", ImportOptions(), tmp_path / "teacher")
    assert report.notes == (
        "teacher is read; the file's other parts are not: student, optimizer, epoch, args, "
        "dino_loss",
        f"the prefix backbone. was taken off {len(of_backbone)} of {len(teacher)} names",
    )
    assert set(report.dropped) == set(heads) and not report.fresh
    found, wanted = our_features(tmp_path / "teacher")[0], features("dino", network)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_teachers_of_version_0_1_0_compute_as_they_did(world, tmp_path):
    """Their description says no activation; CLIP's was always QuickGELU."""
    folder = imported("clip", clip_network(), tmp_path)
    described = json.loads((folder / teachers.TEACHER_FILE).read_text())
    del described["activation"]
    (folder / teachers.TEACHER_FILE).write_text(json.dumps(described))
    given = {"teacher": "clip", "teacher_weights": str(folder)}
    visual = dataclasses.replace(tiny.vqkd_config(world).task.model, **given)
    assert teachers.read_teacher(visual).config.activation == "quick_gelu"
