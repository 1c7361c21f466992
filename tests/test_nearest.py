"""A name that does not exist is answered with the one that was meant."""

import pytest
from absl import flags

from vlbeit_jax.config.describe import describe, meanings
from vlbeit_jax.config.nearest import nearest, or_list
from vlbeit_jax.config.schema import class_of
from vlbeit_jax.flag_errors import explain, suggestion
from vlbeit_jax.tasks import TASKS, Config

KNOWN = meanings(Config(), "config")
OPTIMIZER, MODEL = "config.optimizer", "config.task.model"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        # Names of other programs.
        (f"{OPTIMIZER}.lr", f"{OPTIMIZER}.peak_lr"),
        (f"{OPTIMIZER}.learning_rate", f"{OPTIMIZER}.peak_lr"),
        ("config.lr", f"{OPTIMIZER}.peak_lr"),
        (f"{OPTIMIZER}.wd", f"{OPTIMIZER}.weight_decay"),
        (f"{OPTIMIZER}.warmup", f"{OPTIMIZER}.warmup_steps"),
        (f"{OPTIMIZER}.max_grad_norm", f"{OPTIMIZER}.clip_norm"),
        (f"{MODEL}.hidden_size", f"{MODEL}.width"),
        (f"{MODEL}.num_layers", f"{MODEL}.depth"),
        (f"{MODEL}.num_heads", f"{MODEL}.heads"),
        (f"{MODEL}.mlp_dim", f"{MODEL}.ffn_width"),
        (f"{MODEL}.vocab_size", f"{MODEL}.vocabulary"),
        (f"{MODEL}.dtype", f"{MODEL}.matmul"),
        ("config.task.pair.bs", "config.task.pair.batch_size"),
        ("config.task.image.dataset", "config.task.image.sources"),
        ("config.loader.num_workers", "config.loader.workers"),
        ("config.run.gradient_accumulation_steps", "config.run.accumulate"),
        ("config.run.save_every", "config.run.checkpoint_every"),
        ("config.run.eval_interval", "config.run.evaluate_every"),
        ("config.run.resume", "config.run.start_from"),
        # Misspelt.
        ("config.run.stepz", "config.run.steps"),
        (f"{MODEL}.widht", f"{MODEL}.width"),
        # In another section, or in one that is misspelt.
        ("config.model.width", f"{MODEL}.width"),
        ("config.run.schedule", "config.task.schedule"),
        ("config.optim.lr", f"{OPTIMIZER}.peak_lr"),
        ("config.optim.peak_lr", f"{OPTIMIZER}.peak_lr"),
        # Sections.
        ("config.optimiser", OPTIMIZER),
        ("config.optim", OPTIMIZER),
        ("config.model", MODEL),
    ],
)
def test_the_field_that_was_meant(given, meant):
    assert nearest(given, KNOWN) == [meant]


def test_letters_that_changed_places_count_more_than_a_word_within():
    known = {"format": "how the input is written", "apart_from": "prepared set"}
    assert nearest("fromat", known) == ["format"]
    assert nearest("apart", known) == ["apart_from"]


@pytest.mark.parametrize("given", ["config.run.zzz", "config.task.zzz", "config.xyz.abc", "config"])
def test_nothing_is_suggested_for_a_name_without_a_meaning(given):
    assert nearest(given, KNOWN) == [] and suggestion(given, KNOWN) == ""


def test_a_field_of_several_sections_is_named_with_all_of_them():
    assert set(nearest("config.batch_size", KNOWN)) == {
        f"config.task.{stream}.batch_size" for stream in ("image", "text", "pair")
    }
    said = suggestion("config.batch_size", KNOWN)
    assert said.startswith("; did you mean --config.task.") and said.count("--") == 3


def test_every_field_is_nearest_to_itself_with_a_letter_too_many():
    leaves = [path for path in KNOWN if path not in ("config.task.kind",)]
    wrong = {path: nearest(f"{path}x", KNOWN) for path in leaves}
    assert {path: found for path, found in wrong.items() if found[:1] != [path]} == {}


def test_lists_in_words():
    assert [or_list("a"), or_list("ab"), or_list("abc")] == ["a", "a or b", "a, b or c"]


FLAGS = {
    "from": "workdir of a run",
    "data": "prepared data set, may be repeated",
    "json": "file to write",
    "split": "fine-tuned: part of the data",
}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("splt", "--splt: no such flag; did you mean --split?"),
        ("dataset", "--dataset: no such flag; did you mean --data?"),
        ("checkpoint", "--checkpoint: no such flag; did you mean --from?"),
        ("zzz", "--zzz: no such flag"),
        ("config.run.steps", "--config.run.steps: no such flag; this command has no --config"),
    ],
)
def test_flags_of_a_command(given, said):
    error = flags.UnrecognizedFlagError(given)
    assert explain(error, [], FLAGS).startswith(said)


@pytest.mark.parametrize("given", ["lr", "batch_size", "optimizer.lr"])
def test_a_flag_without_config_means_a_field(given):
    said = explain(flags.UnrecognizedFlagError(given), [], {"config": "", "workdir": ""})
    assert said.startswith(f"--{given}: no such flag; did you mean --config.")


def test_a_wrong_choice_is_answered_with_the_list():
    error = flags.IllegalFlagValueError("flag --split=vall: value should be one of <|train|test>")
    assert explain(error, [], {}) == "--split=vall: must be one of train, test"


@pytest.mark.parametrize("kind", TASKS)
def test_meanings_and_help_of_one_kind_are_of_that_kind_only(kind):
    config = Config(task=class_of(TASKS, kind)())
    text = describe(config, "config", all_kinds=False)
    assert {path for path in meanings(config, "config") if f"  --{path}=" in text}
    assert f"kind={kind})" in text
    assert not any(f"(kind={other})" in text for other in TASKS if other != kind)
    everything = meanings(Config(), "config", all_kinds=True)
    assert meanings(config, "config").keys() <= everything.keys()
