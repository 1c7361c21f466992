"""The first lines of a run name devices and data."""

import pytest

from vlbeit_jax.data.source import open_set
from vlbeit_jax.runtime.devices import devices, in_words
from vlbeit_jax.runtime.first_lines import data_lines, device_line


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("cpu", 1, 1, 2), "CPU, 2 cores"),
        (("cpu", 1, 1, 1), "CPU, 1 core"),
        (("cpu", 4, 1, 2), "4 simulated devices, CPU, 2 cores"),
        (("cpu", 2, 2, 2), "2 x CPU on 2 hosts, 2 cores each"),
        (("NVIDIA H100 80GB HBM3", 1, 1, 16), "NVIDIA H100 80GB HBM3"),
        (("TPU v4", 8, 2, 240), "8 x TPU v4 on 2 hosts"),
    ],
    ids=lambda value: str(value),
)
def test_devices_in_words(given, said):
    found = dict(zip(("kind", "count", "hosts", "cores"), given, strict=True))
    assert in_words(found) == said


def test_the_devices_here_have_words():
    assert device_line({"data": 1}) == in_words(devices())
    assert device_line({"data": 2, "fsdp": 1}).endswith(" (mesh: data 2)")


def test_each_set_is_named_once_with_its_streams_and_its_records(world):
    pairs, texts = open_set("sample:pairs"), open_set(str(world.texts))
    train, validation = pairs.count("train"), pairs.count("validation")
    assert data_lines({"image": [pairs], "text": [texts], "pair": [pairs]}) == [
        f"image, pair: sample:pairs (pairs): train {train:,}, validation {validation:,}",
        f"text: {world.texts} (texts): train 30, validation 10",
    ]
    assert data_lines({}) == []
