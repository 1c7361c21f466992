"""The commands of docs/adapt.md, run as they stand, from every kind of start.

The files have the names of the published ones and random values; sizes and steps are small.
"""

import json
import re
import shlex

import pytest

from tests import tiny
from tests.tasks import published_starts
from tests.tiny import TOP
from vlbeit_jax.prepare.writer import write_set
from vlbeit_jax.types import Kind

PAGE = (TOP / "docs" / "adapt.md").read_text()
# What the page's table calls them.
FRESH = {"words": "text_embed/words,language_head/*", "codes": "vision_head/*"}
STEPS = 3
SMALL = [f"--config.run.steps={STEPS}", "--config.run.log_every=1", "--config.loader.workers=0"]
SMALL += ["--config.optimizer.warmup_steps=1", "--config.task.image.batch_size=8"]
ADAPT = [f"--config.task.{name}.batch_size=8" for name in ("text", "pair")]
VQKD = {"image_size": 32, "patch_size": 8, "width": 32, "heads": 2, "ffn_width": 64}
VQKD |= {"encoder_depth": 1, "decoder_depth": 1, "codes": 24, "code_width": 8}
VQKD |= {"kmeans_batches": 1}
# A place that the page invents: data, a folder of a run or an import, or a file.
INVENTED = re.compile(r"(?<=[=,])(data/\w+|[A-Z][A-Z_2]+|\w+\.pth?)(?=,|$)")


def block(text):
    """The commands of the page's one block with this text, each as a list of arguments."""
    [found] = [each for each in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) if text in each]
    return [shlex.split(line) for line in found.replace("\\\n", " ").strip().splitlines()]


def table():
    """What is fresh, and the format of the visual tokenizer, by the format of the start."""
    found = {}
    for given, fresh, visual in re.findall(r"^\|[^|]*\|(.*)\|(.*)\|(.*)\|$", PAGE, re.MULTILINE):
        if form := re.search(r"`--format=(\w+)`", given):
            tokenizer = re.search(r"`--format=(\w+)`", visual)
            names = ",".join(FRESH[name.strip()] for name in fresh.split(","))
            found[form[1]] = (names, tokenizer[1] if tokenizer else "vqkd")
    return found


STARTS = table()


@pytest.fixture(scope="module")
def place(world, tmp_path_factory):
    """A folder that has the data and the text tokenizer that the page names."""
    folder = tmp_path_factory.mktemp("adapt")
    for name, there in {
        "data/images": world.pairs,
        "data/pairs": world.pairs,
        "data/domain": world.pairs,
        "data/tokens": world.tokens,
        "TEXT_TOKENIZER": world.text_tokenizer,
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(there)
    meta = {"source": "tests", "licence": ""}
    other = tiny.pair_records(16, seed=1, first=64, side=40)
    write_set(folder / "data" / "old", Kind.PAIRS, other, shards=1, meta=meta)
    return folder


def run(arguments, place, *more):
    """Runs a command of the page with its places in a folder; returns what it printed."""
    python, _, module, *given = arguments
    assert python == "python"
    given = [INVENTED.sub(rf"{place}/\1", each) for each in given]
    done = tiny.command(module, *given, *more, timeout=1200)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def imported(form, place, *flags):
    """Imports the file of this form, unless another test has; returns the folder."""
    out = place / form
    if not out.exists():
        file = published_starts.write(form, place)
        convert = ["python", "-m", "vlbeit_jax.convert", f"--format={form}", *flags]
        run(convert, place, f"--from={file}", f"--out={out}")
    return out


def started(folder):
    """What a run took from its start, once it has taken its steps."""
    assert tiny.metrics_of(folder)[-1]["step"] == STEPS
    return json.loads((folder / "start.json").read_text())


def test_the_table_has_every_network_that_can_be_imported():
    assert set(STARTS) == {"beit", "beit2", "vlmo", "beit3"}
    assert STARTS["beit"] == (FRESH["words"], "dalle")
    assert STARTS["vlmo"] == (f"{FRESH['words']},{FRESH['codes']}", "vqkd")


@pytest.mark.slow
@pytest.mark.parametrize("form", STARTS)
def test_an_import_starts_a_run_with_the_flags_of_its_row(place, form, tmp_path):
    fresh, visual = STARTS[form]
    tokenizer = imported(visual, place, *["--image_size=64"] * (visual == "dalle"))
    _, adapt = block("beit3_base.pth")  # The page shows the commands for one of them.
    adapt = [re.sub("(?<=^--config.task.fresh=).*", fresh, each) for each in adapt]
    places = [f"--workdir={tmp_path / 'run'}", f"--config.task.visual_tokenizer={tokenizer}"]
    places.append(f"--config.run.start_from={imported(form, place)}")
    run(adapt, place, *places, *SMALL, *ADAPT)
    start = started(tmp_path / "run")
    wanted = {"text_embed/words", "language_head/bias", "language_head/kernel"}
    wanted |= {"vision_head/bias", "vision_head/kernel"} if FRESH["codes"] in fresh else set()
    assert set(start["fresh"]) == wanted and len(start["same"]) > len(wanted)
    task = json.loads((tmp_path / "run" / "config.json").read_text())["task"]
    model = task["model"]
    assert (model["vocabulary"], model["codes"]) == (tiny.PIECES, published_starts.CODES)
    assert model["pad"] == 0 and task["image"]["num_masked_patches"] == 6  # Two of five of 16.
    evaluate = ["python", "-m", "vlbeit_jax.evaluate", "--data=data/pairs", "--draws=1"]
    places = [f"--from={tmp_path / 'run'}", f"--report={tmp_path / 'run'}"]
    run(evaluate, place, *places, f"--json={tmp_path / 'results.json'}")
    assert "unigram" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_a_clip_teaches_a_tokenizer_whose_tokens_a_run_predicts(
    place, pretrained, activation, tmp_path
):
    """The one with the exact GELU has features of another width, as larger networks have."""
    convert, vqkd, adapt = block("clip_vit_b16.pt")
    (tmp_path / "data").symlink_to(place / "data")
    (tmp_path / "RUN").symlink_to(pretrained)
    convert = [re.sub("(?<=^--activation=).*", activation, each) for each in convert]
    run(convert, tmp_path, f"--from={published_starts.write(activation, tmp_path)}")
    sizes = VQKD | ({"teacher_width": 384} if activation == "gelu" else {})
    model = [f"--config.task.model.{name}={value}" for name, value in sizes.items()]
    run(vqkd, tmp_path, *SMALL, *model)
    run(adapt, tmp_path, *SMALL)
    start = started(tmp_path / "RUN2")
    assert start["fresh"] == start["dropped"] == ["vision_head/bias", "vision_head/kernel"]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["RUN --config.task.schedule=image,pair", "data/old"])
def test_an_earlier_run_goes_on_with_its_tokenizers(place, pretrained, text, tmp_path):
    """On new data alone, and on a mixture with old data."""
    [adapt] = block(text)
    places = [f"--workdir={tmp_path / 'run'}", f"--config.run.start_from={pretrained}"]
    run(adapt, place, *places, *SMALL, *ADAPT)
    start = started(tmp_path / "run")
    assert start["same"] and not start["fresh"] and not start["dropped"]
    if "pair" in text:
        assert (tmp_path / "run" / "text_tokenizer").is_dir()
    assert (tmp_path / "run" / "visual_tokenizer").is_dir()
