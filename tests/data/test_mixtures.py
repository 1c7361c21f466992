"""Any number of weighted sets make one stream, whose parts are known without counting."""

import collections
import itertools

import numpy as np
import pytest

from tests.data.test_order import MANY, WEIGHTS
from tests.make_data import build_pairs
from vlbeit_jax.config.streams import StreamConfig
from vlbeit_jax.data.contributions import Contribution, Mixed, short_names
from vlbeit_jax.data.order import Interleave
from vlbeit_jax.data.pipeline import batches
from vlbeit_jax.data.sampling import TrainingExamples
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.data.source import TRAIN, open_set
from vlbeit_jax.runtime.contributions import Contributions
from vlbeit_jax.training.schedule import Schedule


def source_of(record, draws):
    """An example that says from which record it is."""
    return {"id": np.array([int(record["id"].decode().rpartition("/")[2])])}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Three sets of 8, 12 and 20 pairs, whose ids tell them apart."""
    folder = tmp_path_factory.mktemp("mixture")
    counts = {"small": 8, "middle": 12, "large": 20}
    places = [
        build_pairs(folder, name, count, first=100 * number, validation_share=0.0)
        for number, (name, count) in enumerate(counts.items())
    ]
    return [open_set(str(place)) for place in places]


def mixture(sets, weights):
    return TrainingExamples("pair", sets, source_of, seed=3, weights=weights)


@pytest.mark.parametrize("weights", WEIGHTS + MANY, ids=str)
def test_counts_are_those_of_the_sequence(weights):
    mix, seen = Interleave(weights), collections.Counter()
    for number in range(400):
        assert mix.counts(number) == {each: seen[each] for each in range(len(weights))}
        seen[mix[number][0]] += 1
    assert sum(mix.counts(10**15).values()) == 10**15


@pytest.mark.parametrize("weights", [(), (1, 1, 1), (5, 2.5, 0.1)], ids=str)
def test_each_record_comes_once_per_epoch_of_its_set(sets, weights):
    examples = mixture(sets, weights)
    ids = [int(examples[index]["id"][0]) for index in range(300)]
    for number, found in enumerate(sets):
        own = [each for each in ids if each // 100 == number]
        count = found.count(TRAIN)
        for epoch in range(len(own) // count):
            assert len(set(own[epoch * count : (epoch + 1) * count])) == count
        assert examples.contributions(300)[number].rows == len(own)


def test_without_weights_sets_share_rows_by_their_records(sets):
    examples = mixture(sets, ())
    assert isinstance(examples, Mixed)
    assert examples.contributions(400) == [
        Contribution("small", 80, 8),
        Contribution("middle", 120, 12),
        Contribution("large", 200, 20),
    ]
    assert {each.epochs for each in examples.contributions(400)} == {10.0}


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_any_number_of_hosts_reads_the_same_rows(sets, hosts):
    examples = mixture(sets, (3, 1, 1))
    parts = []
    for host in range(hosts):
        feed = batches(examples, 8, start=5, shard=HostShard((host,), hosts))
        parts.append([next(feed)["id"][:, 0] for _ in range(3)])
        feed.close()
    found = np.concatenate([np.concatenate(each) for each in zip(*parts, strict=True)])
    wanted = [examples[index]["id"][0] for index in range(40, 64)]
    assert found.tolist() == wanted


def test_a_log_says_what_each_set_gave(sets):
    schedule = Schedule.parse("pair,image")
    examples = {"pair": mixture(sets, (2, 1, 1)), "image": range(9)}
    found = Contributions(examples, schedule, {"pair": 8, "image": 8})
    # Five steps are three of pairs: 24 rows, 12 of the first set, which has 8 records.
    figures = found.figures(5)
    assert figures["data/pair/small/rows"] == 12 and figures["data/pair/small/epochs"] == 1.5
    assert len(figures) == 6, "examples that come from no set have no figures"
    assert "pair: small 12 (50.0%, 1.50 epochs), middle 6 (25.0%, 0.50 epochs)" in found.text(5)
    assert found.shares() == "mixture of pair: small 50.00%, middle 25.00%, large 25.00%"
    alone = Contributions({"pair": mixture(sets[:1], ())}, schedule, {"pair": 8})
    assert not alone.shares() and "2.00 epochs" in alone.text(3)


def test_names_are_as_short_as_they_can_be():
    assert short_names(["data/cc3m", "data/sbu/"]) == ["cc3m", "sbu"]
    assert short_names(["a/pairs", "b/pairs", "b/more"]) == ["a/pairs", "b/pairs", "b/more"]
    assert short_names(["pairs"]) == ["pairs"]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((1.0,), r"pair.weights: 1 for 2 sources \(a 1.0, b \?\)"),
        ((1.0, 0.0), "pair.weights: 0.0 for b: must be > 0; to leave a source out"),
        ((1.0, 2.0, 3.0), r"3 for 2 sources \(a 1.0, b 2.0, \? 3.0\)"),
    ],
    ids=str,
)
def test_wrong_weights_are_refused_with_the_name_of_the_set(weights, said):
    import re

    problems = list(StreamConfig(sources=("a", "b"), weights=weights).training_problems("pair"))
    assert any(re.search(said, each) for each in problems), problems
    right = StreamConfig(sources=("a", "b"), weights=(2.5, 1.0)).training_problems("pair")
    assert not list(right)


def test_fifty_sets_are_mixed_exactly():
    weights = [1 + number % 7 for number in range(50)]
    mix = Interleave(weights)
    total = sum(weights)
    counts = mix.counts(total * 3)
    for source, weight in enumerate(weights):
        assert abs(counts[source] - 3 * weight) <= mix.largest_error
    first = list(itertools.islice((mix[index][0] for index in range(total)), total))
    assert set(first) == set(range(50))
