"""Own pictures: the commands of docs/own.md, run as they stand on generated pictures."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests import tiny
from tests.tiny import TOP
from vlbeit_jax.data.source import TRAIN, open_set
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks.new_run import parse_run

DOCUMENT = TOP / "docs" / "own.md"
STEPS = 4


def commands(text=""):
    """The commands of the first block of a text or the document, each as a list of arguments."""
    [block] = re.findall(r"```bash\n(.*?)```", text or DOCUMENT.read_text(), re.DOTALL)[:1]
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def test_the_readme_has_the_same_commands():
    readme = (TOP / "README.md").read_text()
    assert commands(readme[readme.index("## Your own pictures") :]) == commands()


def write_pictures(folder, count):
    """Distinct pictures with captions, half of them in a folder below."""
    rng = np.random.default_rng(count)
    (folder / "below").mkdir(parents=True)
    for number in range(count):
        shape, colour = str(rng.choice(tiny.SHAPES)), str(rng.choice(list(tiny.COLOURS)))
        image = tiny.drawing(rng, shape, tiny.COLOURS[colour], side=48)
        place = folder / ("below" if number % 2 else "") / f"{number:03d}"
        image[0, 0] = (number, 0, 0)
        cv2.imwrite(f"{place}.png", image[..., ::-1])
        place.with_suffix(".txt").write_text(f"a {colour} {shape} and number {number}\n")


def run(arguments, folder, *more):
    """Runs a command of the document in a folder, with the configurations of this checkout."""
    assert arguments[:2] == ["python", "-m"]
    given = [each.replace("--config=configs/", f"--config={TOP}/configs/") for each in arguments]
    done = subprocess.run(
        [sys.executable, *given[1:], *more],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": str(TOP), "XLA_FLAGS": tiny.one_device(os.environ.get("XLA_FLAGS", ""))},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, 200])
def test_the_five_commands_lead_from_pictures_to_a_report(tmp_path, count):
    """Four steps instead of hundreds, and nothing else is different."""
    write_pictures(tmp_path / "pictures", count)
    found = commands()
    assert [arguments[2].split(".")[1] for arguments in found] == [
        "prepare",
        "text_tokenizer",
        "main",
        "main",
        "evaluate",
    ]
    for arguments in found:
        steps = [f"--config.run.steps={STEPS}"] if arguments[2].endswith("main") else []
        run(arguments, tmp_path, *steps)
    model = tmp_path / "runs" / "model"
    results = json.loads((model / "results.json").read_text())
    for term in ("mim", "mlm", "mvlm_image", "mvlm_text"):
        assert results[term]["count"] > 0, term
    assert "low" in results["gain_text"] and results["step"] == STEPS
    page = (model / "report.html").read_text()
    assert "unigram" in page and len(page) > 10_000
    written = json.loads((model / "config.json").read_text())
    pieces = TextTokenizer(tmp_path / "data" / "text_tokenizer").vocabulary
    assert written["task"]["model"]["vocabulary"] == pieces


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    write_pictures(folder / "pictures", 40)
    arguments = commands()[0]
    run(arguments, folder)
    return folder / "data" / "pairs"


def own(variant, *places, **task):
    """Values of a variant, with the sources of every stream."""
    values = runpy.run_path(str(TOP / "configs" / "own.py"))["get_config"](variant).to_dict()
    for name in ("image", "text", "pair"):
        if name in values["task"]:
            values["task"][name]["sources"] = tuple(map(str, places))
    values["task"] |= {name: str(value) for name, value in task.items()}
    return values


def tokenizers(world):
    return {"text_tokenizer": world.text_tokenizer, "visual_tokenizer": world.vqkd}


@pytest.mark.parametrize("size", ["nano", "tiny", "small"])
def test_numbers_follow_from_tokenizers_and_data(world, prepared, size):
    config = parse_run(own(size, prepared, **tokenizers(world)))
    model, task = config.task.model, config.task
    assert (model.vocabulary, model.codes) == (tiny.PIECES, 32)
    assert (model.image_size, model.patch_size) == (32, 8)
    assert task.image.num_masked_patches == 6 and task.pair.mask_block == 1  # Of 16 patches.
    pieces, found = TextTokenizer(world.text_tokenizer), open_set(str(prepared))
    records = found.records(TRAIN)
    captions = [records[index]["captions"][0].decode() for index in range(len(records))]
    longest = max(len(pieces.encode(caption)) + 2 for caption in captions)
    assert task.pair.text_length % 8 == 0 and longest - 8 < task.pair.text_length < longest + 8
    assert config.run.steps == config.run.min_steps > 0
    assert config.optimizer.warmup_steps == config.run.steps // 20
    assert config.run.evaluate_every == config.run.steps // 10


def test_steps_see_every_record_of_every_stream_so_often(world, prepared):
    values = own("nano", prepared, **tokenizers(world))
    values["run"] |= {"epochs": 100, "min_steps": 0}
    count = open_set(str(prepared)).count(TRAIN)
    # Images come in every fourth step, 32 of them.
    assert parse_run(values).run.steps == -(-100 * count * 4 // 32)
    values["task"]["image"]["batch_size"] = values["task"]["text"]["batch_size"] = 320
    assert parse_run(values).run.steps == -(-100 * count * 2 // 32)  # Pairs take longest now.
    values["run"]["steps"] = 7  # Whoever states them is obeyed.
    values["optimizer"]["warmup_steps"] = 3
    config = parse_run(values)
    assert (config.run.steps, config.optimizer.warmup_steps) == (7, 3)


def test_packed_rows_give_their_length_and_texts_are_not_needed(world, prepared):
    values = own("nano", prepared, **tokenizers(world))
    values["task"]["text"]["sources"] = (str(world.tokens),)
    assert parse_run(values).task.text.text_length == 16
    alone = own("nano", prepared, visual_tokenizer=world.vqkd, schedule="image")
    assert parse_run(alone).task.model.vocabulary == 5  # The specials.


@pytest.mark.parametrize("variant", ["nano", "vqkd-nano"])
def test_nobody_trains_on_our_pictures_without_a_word(variant):
    with pytest.raises(UsageError, match="task.image.sources is empty: name at least one prepared"):
        parse_run(own(variant))


def test_what_no_tokenizer_tells_is_asked_for(world):
    values = own("tiny")
    with pytest.raises(UsageError, match="model.vocabulary=0: set it.*\n.*run.steps=0: set it"):
        parse_run(values, to_train=False)
    values["task"]["model"]["vocabulary"] = 1000
    values["run"]["steps"] = 10
    model = parse_run(values, to_train=False).task.model
    assert (model.codes, model.grid) == (1024, 8)  # Those of the tokenizer of this size.


def test_visual_tokens_are_kept_for_sizes_that_follow(world, prepared, tmp_path):
    streams = [f"--config.task.{name}.sources={prepared}" for name in ("image", "text", "pair")]
    given = [f"--config.task.{name}={place}" for name, place in tokenizers(world).items()]
    given += [f"--config.task.{name}.views=2" for name in ("image", "pair")]
    given.append(f"--config.task.visual_tokens={tmp_path / 'tokens'}")
    done = tiny.command("vlbeit_jax.keep_tokens", "--config=configs/own.py:nano", *streams, *given)
    # Pictures of pairs are cropped less than pictures alone, so each has its own views.
    assert done.returncode == 0 and "2 of 2 parts are there" in done.stdout, done.stderr


def test_one_set_is_not_trained_on_twice(prepared, tmp_path):
    with pytest.raises(UsageError, match="is named 2 times; name it once"):
        parse_run(own("vqkd-nano", prepared, prepared))
    (tmp_path / "copy").symlink_to(prepared)
    with pytest.raises(UsageError, match="hold the same records"):
        parse_run(own("vqkd-nano", prepared, tmp_path / "copy"))


@pytest.mark.parametrize("given, near", [("tinny", "own:tiny"), ("vqkd_nano", "own:vqkd-nano")])
def test_a_variant_that_does_not_exist_is_named_with_the_nearest(given, near):
    with pytest.raises(UsageError, match=f"no variant '{given}'; did you mean {near}"):
        own(given)
