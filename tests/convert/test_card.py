"""The model card: data, figures with baselines, uses and limits, as the Hub reads them."""

import dataclasses
import json
import shutil

import pytest

from tests import tiny
from tests.convert.conftest import small_run, write_random_run
from tests.convert.finetuned_runs import sets_in, task_of, write_run
from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.convert.card import of_finetuned, of_run, write_card
from vlbeit_jax.convert.card_figures import figures_of_evaluation, table
from vlbeit_jax.convert.examples import without_folders
from vlbeit_jax.convert.finetuned import read_finetuned
from vlbeit_jax.convert.source import read_run
from vlbeit_jax.data.source import open_set
from vlbeit_jax.folders import SAMPLE_FOLDER
from vlbeit_jax.runtime.metrics_file import append_metrics
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.training.saved_run import START_FILE
from vlbeit_jax.training.sealed import with_seal

CODE = "model = load('.')"


def card_of(subject, out):
    out.mkdir(exist_ok=True)
    write_card(subject, CODE, out)
    return (out / "README.md").read_text()


def section(card, title):
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0]


def described(run, **changes):
    """Writes the newest checkpoint's parameters again, with another description."""
    folder = run.folder / "checkpoints" / str(run.step) / "description" / "metadata"
    folder.write_text(json.dumps(with_seal(json.loads(folder.read_text()) | changes)))
    return read_run(run.folder)


def test_the_sample_names_its_data_with_licences_and_counts(tmp_path):
    card = card_of(of_run(read_run(SAMPLE_FOLDER)), tmp_path)
    data = section(card, "Data")
    for name in ("pairs", "texts"):
        found = open_set(f"sample:{name}")
        (row,) = [line for line in data.splitlines() if found.fingerprint in line]
        assert f"`sample:{name}`" in row and found.meta["licence"] in row
        assert f"| {found.count('train'):,} | {found.count('validation'):,} |" in row
    assert "| not here any more |" in data and "`aaa65502c2d9`" in data
    assert "3,116 different pictures and 2,057 different texts" in data
    assert "None: the run has evaluated nothing" in section(card, "Figures")
    assert CODE in section(card, "Use") and "teacher `pixels`" in section(
        card, "How it was trained"
    )


def test_the_metadata_is_what_the_hub_reads(tmp_path):
    cards = pytest.importorskip("huggingface_hub").ModelCard
    card_of(of_run(read_run(SAMPLE_FOLDER)), tmp_path)
    found = cards.load(tmp_path / "README.md").data
    assert found.pipeline_tag == "feature-extraction" and found.library_name == "vlbeit_jax"
    assert found.license == "unknown" and "arxiv:2206.01127" in found.tags


def test_a_set_that_has_changed_or_gone_is_not_described(tmp_path, world):
    """What stands in its folder now is not what the run has seen. No folder is named."""
    place = tmp_path / "pairs"
    shutil.copytree(world.pairs, place)
    config = tiny.pretrain_config(dataclasses.replace(world, pairs=place))
    run = write_random_run(tmp_path / "run", config)
    seen = open_set(str(place)).fingerprint
    card = card_of(of_run(described(read_run(run), trained_on=[seen])), tmp_path / "out")
    assert "| `pairs` | pairs | tests | **not told** | 48 | 16 |" in section(card, "Data")
    assert str(tmp_path) not in card
    meta = json.loads((place / "vlbeit_meta.json").read_text())
    (place / "vlbeit_meta.json").write_text(json.dumps(meta | {"fingerprint": "0" * 12}))
    for _ in range(2):
        data = section(card_of(of_run(read_run(run)), tmp_path / "out"), "Data")
        assert f"| not here any more | unknown | unknown | unknown | | | `{seen}` |" in data
        assert "`pairs`" not in data
        shutil.rmtree(place, ignore_errors=True)


def test_of_an_import_nothing_is_known(tmp_path):
    run = described(small_run(tmp_path / "run"), imported_from="beit_base.pth")
    card = card_of(of_run(run), tmp_path / "out")
    assert "Imported from `beit_base.pth`" in section(card, "Data")
    assert "nothing is known" in section(card, "Data")
    trained = section(card, "How it was trained")
    assert "not known" in trained and "learning rate" not in trained


def test_the_last_figures_of_a_run_stand_beside_their_baselines(tmp_path):
    config = Config(task=Pretrain(model=small_run(tmp_path / "a").model), run=RunConfig(steps=1))
    run = read_run(write_random_run(tmp_path / "run", config))
    told = {"mim/chance": 0.01, "mim/loss": 3.5, "mim/count": 1200}
    for step, accuracy in ((1, 0.9), (2, 0.25)):
        line = {"step": step, "split": "validation", "seconds": 1.0, "mim/accuracy": accuracy}
        append_metrics(run.folder, line | {"mim/unigram": 0.07} | told)
    append_metrics(run.folder, {"step": 2, "split": "validation", "probe/image/ridge": 0.2})
    append_metrics(run.folder, {"step": 3, "split": "train", "mim/accuracy": 0.99})
    figures = section(card_of(of_run(run), tmp_path / "out"), "Figures")
    assert "at step 2." in figures
    assert "| `mim/accuracy` | 25.00% |  | most frequent token 7.00%, chance 1.00% |" in figures
    assert "| `mim/loss` | 3.500 |" in figures and "| `mim/count` | 1,200 |" in figures
    assert "| `probe/image/ridge` | 20.00% |" in figures
    assert "90.00%" not in figures and "99.00%" not in figures


def test_a_figure_that_is_no_better_than_no_network_is_marked():
    found = {
        "mim": {"accuracy": 0.07, "unigram": 0.07, "chance": 0.01, "loss": 4.0, "count": 10},
        "mlm": None,
        "gain_text": {"value": 0.01, "low": 0.002, "high": 0.02},
        "gain_image": {"value": 0.001, "low": -0.002, "high": 0.004},
        "step": 3,
    }
    rows = table(figures_of_evaluation(found))
    assert rows[2].endswith("most frequent token 7.00%, chance 1.00% (**not beaten**) |")
    assert "| `gain_text` | +1.00% | +0.20% to +2.00% |  |" in rows
    assert "| `gain_image` | +0.10% | -0.20% to +0.40% (holds 0) |  |" in rows
    retrieval = {
        "metrics": {
            "retrieval/image_to_text/recall_1": 0.5,
            "retrieval/image_to_text/recall_1_interval": [0.4, 0.6],
        },
        "chance": {"image_to_text/recall_1": 0.1},
    }
    assert table(figures_of_evaluation(retrieval))[2:] == [
        "| `retrieval/image_to_text/recall_1` | 50.00% | 40.00% to 60.00% | chance 10.00% |"
    ]


def test_a_fine_tuned_card_tells_its_task_start_and_evaluation(tmp_path):
    sets = sets_in(tmp_path / "own")
    task = task_of("image_classification", sets["image_classification"], "")
    run = write_run(tmp_path / "run", task)
    start = {"step": 7, "trained_on": ["a15df950ea01"], "imported_from": None}
    start |= {"from": str(tmp_path / "gone")}
    (run / START_FILE).write_text(json.dumps(start))
    source = read_finetuned(run, "ema")
    out = tmp_path / "out"
    out.mkdir()
    found = {
        "metrics": {"accuracy": 0.5, "majority": 0.25, "accuracy_interval": [0.3, 0.7]},
        "protocol": {"split": "test"},
        "data": [{"folder": str(tmp_path / "own" / "birds")}],
        "start": start,
    }
    (out / "evaluation.json").write_text(json.dumps(without_folders(found)))
    card = card_of(of_finetuned(source), out)
    assert "pipeline_tag: image-classification" in card and "one of the classes" in card
    assert "It started from the weights of `gone` at step 7" in section(card, "Data")
    assert "`sample:pairs`" in section(card, "Data")
    assert "on `birds` (test)" in section(card, "Figures")
    assert "| 50.00% | 30.00% to 70.00% | most frequent class 25.00% |" in section(card, "Figures")
    assert "| weights | ema |" in card
    for text in (card, (out / "evaluation.json").read_text()):
        assert str(tmp_path) not in text
    start["imported_from"] = "beit.pth"
    (run / START_FILE).write_text(json.dumps(start))
    assert "an import of `beit.pth`" in section(card_of(of_finetuned(source), out), "Data")
