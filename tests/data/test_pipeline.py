"""Batches are a function of seed, stream and step: for any workers, hosts and starting points."""

import collections
import contextlib
import itertools
import time
import zlib

import numpy as np
import pytest

from tests.data.conftest import BATCH
from vlbeit_jax.config.common import LoaderConfig
from vlbeit_jax.data.pipeline import batches
from vlbeit_jax.data.sampling import EvaluationExamples, TrainingExamples
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.data.source import TRAIN, VALIDATION, open_set
from vlbeit_jax.data.sources import open_sources
from vlbeit_jax.errors import UsageError


@pytest.fixture(scope="session")
def train(setting):
    """Some batches of a stream."""

    def take(count, name="pair", *, seed=0, start=0, shard=HostShard(), workers=0, **changed):
        stream, make = setting(name, **changed)
        sets = open_sources(name, stream, make.tokenizer.fingerprint if make.tokenizer else "")
        examples = TrainingExamples(name, sets, make, seed=seed, weights=stream.weights)
        loader = LoaderConfig(workers=workers)
        with contextlib.closing(
            batches(examples, stream.batch_size, start, shard, loader)
        ) as found:
            return list(itertools.islice(found, count))

    return take


def evaluate(records, make, batch_size, seed, shard=HostShard(), **options):
    examples = EvaluationExamples(records, make, batch_size, seed=seed, **options)
    with contextlib.closing(batches(examples, batch_size, shard=shard)) as found:
        return list(found)


def joined(parts):
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def assert_equal(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key].dtype == other[key].dtype and np.array_equal(one[key], other[key]), key


def uids(*sets, split=TRAIN):
    return [
        {zlib.crc32(record["id"]) for record in open_set(str(place)).records(split)}
        for place in sets
    ]


def assembled(by_host, shards):
    """The hosts' rows at their places in the global batch."""

    def whole(parts, key):
        blocks = {}
        for part, shard in zip(parts, shards, strict=True):
            blocks |= dict(zip(shard.blocks, np.split(part[key], len(shard.blocks)), strict=True))
        return np.concatenate([blocks[place] for place in range(shards[0].of)])

    return [{key: whole(parts, key) for key in parts[0]} for parts in zip(*by_host, strict=True)]


# Hosts with one block each; a torus, where the blocks of a host are not contiguous; and tensor
# parallelism, where two hosts have the same rows.
SHARDS = {
    "2": [HostShard((0,), 2), HostShard((1,), 2)],
    "4": [HostShard((host,), 4) for host in range(4)],
    "16": [HostShard((host,), 16) for host in range(16)],
    "torus": [HostShard((0, 1, 4, 5), 8), HostShard((2, 3, 6, 7), 8)],
    "tensor": [HostShard((0,), 2), HostShard((0,), 2), HostShard((1,), 2), HostShard((1,), 2)],
}


@pytest.mark.parametrize("name", ["image", "text", "pair"])
def test_streams_hold_what_their_names_say(train, name):
    batch = train(1, name)[0]
    keys = {"weight", "uid"}
    keys |= {"image", "masked_patches"} if name != "text" else set()
    keys |= {"text", "text_masked", "text_targets", "text_weights"} if name != "image" else set()
    assert batch.keys() == keys and all(len(rows) == BATCH for rows in batch.values())
    assert batch["weight"].tolist() == [1.0] * BATCH


@pytest.mark.parametrize("name", ["image", "text", "pair"])
def test_starting_at_a_step_equals_going_there(train, name):
    whole = train(9, name)
    for start in (1, 4, 8):
        assert_equal(train(9 - start, name, start=start), whole[start:])


def test_a_far_step_is_reached_at_once(train):
    begun = time.monotonic()
    first = train(2, start=1_000_000)
    assert time.monotonic() - begun < 5
    assert_equal(train(2, start=1_000_000), first)
    assert_equal(train(1, start=1_000_001), first[1:])


def test_workers_change_nothing(train):
    assert_equal(train(5, workers=2, start=3), train(5, start=3))


@pytest.mark.parametrize("name", ["image", "text", "pair"])
@pytest.mark.parametrize("shards", SHARDS.values(), ids=SHARDS)
def test_hosts_share_each_batch_among_them(train, name, shards):
    by_host = [train(3, name, start=2, shard=shard, batch_size=16) for shard in shards]
    assert all(
        len(batch["uid"]) == 16 // shard.of * len(shard.blocks)
        for found, shard in zip(by_host, shards, strict=True)
        for batch in found
    )
    assert_equal(assembled(by_host, shards), train(3, name, start=2, batch_size=16))


def test_seeds_and_streams_share_nothing(train):
    taken = [train(4), train(4, seed=1), train(4, seed=2**40), train(4, "image")]
    orders = [joined(batch)["uid"] for batch in taken]
    for one, other in itertools.combinations(orders, 2):
        assert (one == other).mean() < 0.3
    same = train(4), train(4, "image")
    assert not np.array_equal(joined(same[0])["masked_patches"], joined(same[1])["masked_patches"])


def test_neighbouring_seeds_give_other_epochs(train, pairs):
    """Grain's own shuffle(seed) would give epoch 1 of one seed as epoch 0 of the next."""
    count = open_set(str(pairs)).count(TRAIN)
    orders = {
        seed: joined(train(2, seed=seed, batch_size=count))["uid"].reshape(2, count)
        for seed in range(3)
    }
    for seed in range(2):
        assert (orders[seed][1] == orders[seed + 1][0]).mean() < 0.3


def test_every_epoch_visits_each_record_once_in_another_order(train, pairs):
    count = open_set(str(pairs)).count(TRAIN)
    epochs = joined(train(4 * count // BATCH + 1))["uid"][: 4 * count].reshape(4, count)
    for epoch in epochs:
        assert set(epoch) == uids(pairs)[0] and len(set(epoch)) == count
    for one, other in itertools.combinations(epochs, 2):
        assert (one == other).mean() < 0.3


def test_the_same_record_is_seen_differently_each_time(train, pairs):
    count = open_set(str(pairs)).count(TRAIN)
    seen = joined(train(3, batch_size=count))
    for key in ("image", "masked_patches", "text_masked"):
        for uid in set(seen["uid"]):
            assert len({rows.tobytes() for rows in seen[key][seen["uid"] == uid]}) > 1, key


@pytest.mark.parametrize(
    "weights, shares", [((3.0, 1.0), (0.75, 0.25)), ((0.1, 0.9), (0.1, 0.9)), ((), None)]
)
def test_mixtures_honour_their_weights(train, pairs, few_pairs, weights, shares):
    many, few = uids(pairs, few_pairs)
    shares = shares or (len(many) / (len(many) + len(few)), len(few) / (len(many) + len(few)))
    seen = joined(train(50, sources=(str(pairs), str(few_pairs)), weights=weights))["uid"]
    for part, share in ((many, shares[0]), (few, shares[1])):
        running = np.cumsum([uid in part for uid in seen])
        assert np.abs(running - share * np.arange(1, len(seen) + 1)).max() <= 1
        visits = [np.sum(seen == uid) for uid in part]
        assert max(visits) - min(visits) <= 1


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("shards", [SHARDS["2"], SHARDS["torus"]], ids=["2", "torus"])
def test_evaluation_takes_every_record_as_often_as_asked(setting, held_out, draws, shards):
    records, (_, make) = (
        open_set(str(held_out)).records(VALIDATION),
        setting("pair", augment=False),
    )
    whole = evaluate(records, make, BATCH, 5, repeats=draws)
    by_host = [evaluate(records, make, BATCH, 5, shard, repeats=draws) for shard in shards]
    assert_equal(assembled(by_host, shards), whole)
    rows = joined(whole)
    assert (
        len(whole) == -(-103 * draws // BATCH)
        and set(rows["weight"]) == {0, 1}
        and rows["weight"].sum() == 103 * draws
    )
    seen = collections.Counter(rows["uid"][rows["weight"] > 0].tolist())
    assert set(seen) == uids(held_out, split=VALIDATION)[0] and set(seen.values()) == {draws}
    for uid in seen:
        mine = (rows["uid"] == uid) & (rows["weight"] > 0)
        assert len({image.tobytes() for image in rows["image"][mine]}) == 1
    masks = rows["masked_patches"][: 103 * draws].reshape(draws, 103, -1)
    assert all(
        (one != other).any(axis=1).mean() > 0.9 for one, other in itertools.combinations(masks, 2)
    )


def test_evaluation_may_stop_early(setting, held_out):
    records, (_, make) = (
        open_set(str(held_out)).records(VALIDATION),
        setting("pair", augment=False),
    )
    assert_equal(
        evaluate(records, make, BATCH, 5, max_batches=4), evaluate(records, make, BATCH, 5)[:4]
    )
    assert not np.array_equal(
        joined(evaluate(records, make, 103, 6))["masked_patches"],
        joined(evaluate(records, make, 103, 5))["masked_patches"],
    )


def test_training_and_held_out_records_are_disjoint(pairs):
    assert not uids(pairs)[0] & uids(pairs, split=VALIDATION)[0]


def test_a_batch_must_divide_among_the_hosts(train):
    with pytest.raises(UsageError, match="batch_size=8 .* 3 equal blocks"):
        train(1, shard=HostShard((0,), 3))


def test_a_remainder_fills_no_batch_and_the_end_is_the_end():
    examples = [{"number": np.int32(index)} for index in range(11)]
    with contextlib.closing(batches(examples, 4, 1)) as found:
        assert [batch["number"].tolist() for batch in found] == [[4, 5, 6, 7]]
    with contextlib.closing(batches(examples, 4, 3)) as found:
        assert not list(found)
