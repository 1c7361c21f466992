"""A run over damaged records: counts, the log, a resume, several processes, and when it ends."""

import json
import re
import shutil
import threading
import types
from typing import Any

import pytest

from tests import tiny
from tests.runtime.test_processes import together
from tests.runtime.test_survival import config_of, log_of, one_trace  # noqa: F401
from tests.test_toy_task import stops_after
from vlbeit_jax.data.bad_records import UNREADABLE, BadRecord, Replaced
from vlbeit_jax.data.order import Epochs
from vlbeit_jax.data.set_records import SetRecords
from vlbeit_jax.data.shards import facts_of
from vlbeit_jax.data.source import META_FILE, TRAIN, open_set
from vlbeit_jax.errors import BadData
from vlbeit_jax.runtime.bad_data import TooManyBadRecords
from vlbeit_jax.runtime.hooks.bad_records import BadRecords
from vlbeit_jax.runtime.start import train
from vlbeit_jax.training.checkpoint import Checkpointer

STATE: Any = None  # The hook does not look at it.
KEY = f"data/text/replaced/{UNREADABLE}"


@pytest.fixture
def bad(monkeypatch):
    """Makes records of every set unreadable, by their numbers."""
    read, numbers = SetRecords.__getitem__, set()

    def unreadable(self, index):
        if index in numbers:
            raise BadRecord(UNREADABLE, f"{self.place(index)} cannot be read")
        return read(self, index)

    monkeypatch.setattr(SetRecords, "__getitem__", unreadable)
    return numbers


def counts(run):
    return [line.get(KEY, 0) for line in tiny.metrics_of(run) if line["split"] == "train"]


@pytest.fixture(scope="module")
def order(world):
    """The record of each of the first 64 rows."""
    tokens = open_set(str(world.tokens))
    found = Epochs(tokens.count(TRAIN), 0, "text", 0, tokens.fingerprint)
    return [found[row] for row in range(64)]


def test_replaced_rows_are_named_and_counted_on_after_a_resume(world, tmp_path, bad, order):
    bad.update({order[3], order[20], order[41]})  # Of steps 1, 3 and 6.
    with stops_after(4):
        train(config_of(world), tmp_path / "run")
    assert counts(tmp_path / "run") == [1, 2]
    train(config_of(world), tmp_path / "run")
    assert counts(tmp_path / "run") == [1, 2, 3, 3]
    said = log_of(tmp_path / "run")
    shard = next(world.tokens.glob("tokens-train.array_record-*"))
    named = re.findall(rf"text, unreadable: {shard}, record (\d+) of \d+ cannot be read", said)
    assert [int(number) for number in named] == [order[3], order[20], order[41]]
    assert "step 6: the records of 1 examples cannot be used, and neighbours took their" in said
    assert "since step 0: text unreadable 3" in said


def latest(run):
    return Checkpointer(run / "checkpoints", read_only=True).latest()


def test_at_0_the_first_one_ends_the_run_after_the_step_before_it_is_saved(
    world, tmp_path, bad, order
):
    bad.add(order[27])
    with pytest.raises(BadData, match=r"stream text, step 4: .*tokens-train.*, record \d+ of"):
        train(config_of(world, checkpoint_every=100, bad_records=0), tmp_path / "run")
    assert latest(tmp_path / "run") == 3


def test_above_the_share_the_run_ends_with_its_figures(world, tmp_path, bad, order):
    """A share of 0.001 of the 8,000 rows of 1,000 steps is 8 rows. The step is saved before."""
    bad.update(order[:9])
    with pytest.raises(TooManyBadRecords) as raised:
        train(config_of(world, checkpoint_every=100), tmp_path / "run")
    assert counts(tmp_path / "run") == [9] and latest(tmp_path / "run") == 2
    said = "step 2: the records of 9 rows of the last 1,000 steps cannot be used, more than "
    assert f"{said}run.bad_records=0.001 of 8,000 rows" in str(raised.value)
    assert f"error: {raised.value}" in log_of(tmp_path / "run")
    assert raised.value.code == 65


def test_a_shard_that_is_not_the_one_written_is_refused_before_a_folder_is_made(world, tmp_path):
    shutil.copytree(world.tokens, tmp_path / "tokens")
    shard = next((tmp_path / "tokens").glob("tokens-train.array_record-*"))
    shard.write_bytes(shard.read_bytes()[: 2**16])
    config = tiny.changed(config_of(world), task={"text": {"sources": (str(tmp_path / "tokens"),)}})
    with pytest.raises(BadData, match=f"{shard.name} has 65,536 bytes, but .* were written"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Together:
    """What processes say to each other, between threads."""

    def __init__(self, count):
        self._barrier, self._said = threading.Barrier(count, timeout=20), {}

    def gathered(self, process):
        def gather(own):
            self._barrier.wait()
            self._said[process] = own
            self._barrier.wait()
            return [self._said[each] for each in sorted(self._said)]

        return gather


def of_process(
    together, process, share=0.1, saved: Any = types.MappingProxyType({}), say=lambda text: None
):
    gather = together.gathered(process)
    return BadRecords(
        gather, lambda own: any(gather(own)), say, lambda steps: steps * 8, share, saved
    )


def replaced(*examples):
    return [Replaced(example, UNREADABLE, f"record {example}") for example in examples]


def run_threads(*calls):
    found = [None] * len(calls)

    def keep(place, call):
        found[place] = call()

    threads = [threading.Thread(target=keep, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_processes_have_equal_counts_and_count_rows_that_two_of_them_read_once():
    together, logs = Together(3), [[], [], []]
    hooks = [of_process(together, each, say=logs[each].append) for each in range(3)]
    for hook in hooks:
        hook.before_step(0)
    hooks[0].add("text", replaced(1, 2))
    hooks[1].add("text", replaced(2))  # Tensor parallelism: this row is on both.
    figures = run_threads(*(lambda hook=hook: hook.figures(2) for hook in hooks))
    assert figures == [{KEY: 2}] * 3 and logs[0] == logs[1] == logs[2]
    assert "the records of 2 examples cannot be used" in logs[2][0] and "record 2" in logs[2][0]
    hooks[2].before_step(2)
    hooks[2].add("text", replaced(*range(30, 40)))
    saved = run_threads(*(lambda hook=hook: hook.described(4) for hook in hooks))
    assert saved == [{"counts": {"text": {UNREADABLE: 12}}, "recent": [[1, 2], [3, 10]]}] * 3
    assert logs[0][1].count("record 3") == 3  # Five records are named in all.
    resumed = of_process(Together(1), 0, saved=saved[0])
    assert resumed.figures(4) == {KEY: 12} and resumed.described(4) == saved[0]


def test_the_share_is_that_of_the_last_1000_steps_on_every_process():
    hook = of_process(Together(1), 0, share=0.001, saved={"recent": [[1, 8]]})
    hook.figures(1)
    hook.after_step(1, STATE, None)
    hook.before_step(1000)
    hook.add("text", replaced(8000))
    hook.figures(1001)  # Step 1 is no longer one of the last 1,000.
    hook.after_step(1001, STATE, None)
    hook.add("text", replaced(*range(8001, 8009)))
    hook.figures(1002)
    with pytest.raises(TooManyBadRecords, match="9 rows of the last 1,000 .* of 8,000 rows"):
        hook.after_step(1002, STATE, None)


@pytest.mark.slow
def test_two_processes_count_the_same_bad_records_as_one(world, tmp_path):
    """The damage is in the file, and a resume between two log lines changes no count."""
    damaged, numbers = tmp_path / "tokens", []
    shutil.copytree(world.tokens, damaged)
    shard = next(damaged.glob("tokens-train.array_record-*"))
    whole = shard.read_bytes()
    for place in range(2_000, 30_000, 4_000):  # A record has some forty bytes.
        whole = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    shard.write_bytes(whole)
    meta = json.loads((damaged / META_FILE).read_text())
    meta["shards"][shard.name] |= facts_of(shard)
    (damaged / META_FILE).write_text(json.dumps(meta))
    records = open_set(str(damaged)).records(TRAIN)
    for number in range(len(records)):
        try:
            records[number]
        except BadRecord:
            numbers.append(number)
    assert 1 <= len(numbers) <= 30, numbers
    values = tiny.pretrain_config(
        world, schedule="text", steps=12, log_every=4, checkpoint_every=6, bad_records=0.1
    )
    values = tiny.changed(values, task={"text": {"sources": (str(damaged),)}})
    config = f"--config={tiny.config_file(values, tmp_path)}"

    def counts(folder):
        return [line.get("data/text/replaced/unreadable", 0) for line in tiny.metrics_of(folder)]

    done = tiny.command("vlbeit_jax.main", config, f"--workdir={tmp_path / 'one'}", devices=2)
    assert done.returncode == 0, done.stderr
    codes, texts = together(2, lambda _: [config, f"--workdir={tmp_path / 'two'}"])
    assert codes == [0, 0], texts
    found = counts(tmp_path / "one")
    assert found[-1] > 0 and counts(tmp_path / "two") == found, (numbers, found)
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "12")
    (tmp_path / "two" / "runs.jsonl").unlink()
    codes, texts = together(2, lambda _: [config, f"--workdir={tmp_path / 'two'}"])
    assert codes == [0, 0] and "resumes at step 6 of 12" in texts[0], texts
    assert counts(tmp_path / "two") == found
