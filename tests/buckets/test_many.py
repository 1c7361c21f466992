"""Two processes, loader processes, predictions and a killed preparation, all on gs://."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests import tiny
from tests.buckets.test_run import done
from tests.convert.finetuned_runs import sets_in, task_of, write_run
from tests.make_data import pair_members, write_tar
from tests.runtime.test_processes import assert_close, together
from vlbeit_jax.copies import local_copy
from vlbeit_jax.places import copy_tree, place

pytestmark = [
    pytest.mark.slow,
    # gcsfs gives aiohttp whole bodies of up to 5 MiB, and aiohttp warns above 1 MiB.
    pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"),
]
STEPS = 6


@pytest.fixture(scope="module")
def config(cloud, world, tmp_path_factory):
    """The flag of a configuration whose data are in the bucket."""
    home = place(f"{cloud.address}/many")
    for name in ("pairs", "tokens", "text_tokenizer", "vqkd"):
        copy_tree(getattr(world, name), home / name)
    values = tiny.pretrain_config(tiny.world_in(home), steps=STEPS, log_every=2, checkpoint_every=3)
    return f"--config={tiny.config_file(values, tmp_path_factory.mktemp('config'))}"


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """The same steps of one process, whose workdir is on a disk."""
    run = tmp_path_factory.mktemp("alone") / "run"
    done("vlbeit_jax.main", config, f"--workdir={run}")
    return run


def test_two_processes_share_a_workdir(folder, config, alone):
    run = folder / "run"
    codes, texts = together(2, lambda _: [config, f"--workdir={run}"])
    assert codes == [0, 0], texts
    assert not (run / ".lock").exists()
    with local_copy(run) as copy:
        assert_close(copy, alone, STEPS)
        assert [line["step"] for line in tiny.metrics_of(copy)] == [2, 4, 6]
    codes, texts = together(2, lambda _: [config, f"--workdir={run}", "--config.run.steps=8"])
    assert codes == [0, 0] and f"resumes at step {STEPS} of 8" in texts[0], texts


def test_loader_processes_read_a_bucket(folder, config, alone):
    run = folder / "run"
    done("vlbeit_jax.main", config, f"--workdir={run}", "--config.loader.workers=2")
    with local_copy(run) as copy:
        assert_close(copy, alone, STEPS)


def test_a_run_predicts_from_a_bucket(folder, world, tmp_path):
    sets = sets_in(tmp_path / "sets")
    for name in ("image_classification", "segmentation"):
        task = task_of(name, sets[name], world.text_tokenizer)
        local = write_run(tmp_path / "runs" / name, task)
        copy_tree(local, folder / "runs" / name)
        lines = [{"image": f"{n}.png"} for n in range(4)]
        (tmp_path / "sets" / "new.jsonl").write_text("\n".join(map(json.dumps, lines)))
        copy_tree(tmp_path / "sets", folder / "sets")
        for top in (tmp_path, folder):
            done(
                "vlbeit_jax.predict",
                f"--from={top / 'runs' / name}",
                f"--input={top / 'sets' / 'new.jsonl'}",
                f"--out={top / f'{name}.jsonl'}",
            )
        here, there = ((top / f"{name}.jsonl").read_text() for top in (tmp_path, folder))
        assert there.replace(str(folder), str(tmp_path)) == here and here.count("\n") == 4
    masks = [path.name for path in (folder / "segmentation").iterdir()]
    assert masks


def test_a_preparation_that_is_killed_is_resumed(folder, tmp_path):
    """By SIGKILL, with two workers; the staging folders go with the next start."""
    for number in range(6):
        write_tar(tmp_path / "in" / f"{number}.tar", pair_members(300, 250 * number))
    copy_tree(tmp_path / "in", folder / "in")
    (tmp_path / "staging").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / "staging")}
    program = (
        "from vlbeit_jax.prepare.formats import base; base.UNIT_TEXT = 1; "
        "from vlbeit_jax import cli; from vlbeit_jax.prepare import __main__ as command; "
        "cli.run(command.main, command.OVERVIEW)"
    )
    flags = ["--kind=pairs", "--workers=2", f"--input={folder / 'in' / '*.tar'}"]
    line = [sys.executable, "-c", program, *flags, f"--out={folder / 'set'}"]
    process = subprocess.Popen(line, cwd=tiny.TOP, env=environment)
    parts = folder / "set.work" / "parts"
    while not list(parts.glob("*.json")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = [path.name for path in parts.glob("*.json")]
    assert (folder / ".set.lock").is_file() and not (folder / "set").exists() and before
    ended = subprocess.run(line, cwd=tiny.TOP, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "of 6 parts are finished already" in ended.stderr
    local = [each.replace(str(folder), str(tmp_path)) for each in line]
    assert subprocess.run(local, cwd=tiny.TOP, env=environment).returncode == 0
    there, here = (
        {path.name: path.read_bytes() for path in (top / "set").iterdir()}
        for top in (folder, tmp_path)
    )
    assert there == here
    assert sorted(path.name for path in folder.iterdir()) == ["in", "set"]
    assert list((tmp_path / "staging").iterdir()) == []
