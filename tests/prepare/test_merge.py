"""All parts side by side."""

from vlbeit_jax.data.identity import PICTURES, TEXTS, TRAIN, VALIDATION
from vlbeit_jax.prepare.merge import Merged
from vlbeit_jax.prepare.parts import Arrays, Part, arrays_file


def merged(folder, *parts):
    """Parts with these ids by split, each a number; every record has its id as digest and key."""
    counts = []
    for number, ids in enumerate(parts):
        arrays = Arrays()
        for split, found in ids.items():
            for place, identity in enumerate(found):
                keys = {PICTURES: [identity], TEXTS: [identity, identity + 1]}
                arrays.add(split, place, identity.to_bytes(32, "big"), identity, keys)
        arrays.save(arrays_file(folder, number))
        counts.append(Part("", counts={split: len(found) for split, found in ids.items()}))
    return Merged(folder, counts)


PARTS = {TRAIN: [5, 6], VALIDATION: [7]}, {VALIDATION: [5]}, {TRAIN: [8, 6], VALIDATION: [5]}


def test_an_id_that_an_earlier_part_has_gets_the_number_of_its_part(tmp_path):
    """Whichever split the two are in; the first one keeps the id."""
    assert merged(tmp_path, *PARTS).repeated_ids() == {
        TRAIN: {3: "##2"},
        VALIDATION: {1: "##1", 2: "##2"},
    }
    assert merged(tmp_path, {TRAIN: [5, 6]}, {TRAIN: [7], VALIDATION: [8]}).repeated_ids() == {}
    assert merged(tmp_path).repeated_ids() == {}


def test_a_record_has_one_number_within_its_split(tmp_path):
    found = merged(tmp_path, *PARTS)
    places = [found.place(TRAIN, number) for number in range(found.count(TRAIN))]
    assert places == [(0, 0), (0, 1), (2, 0), (2, 1)]
    assert [found.number(TRAIN, *place) for place in places] == [0, 1, 2, 3]
    assert [found.range_of(TRAIN, part) for part in range(3)] == [(0, 2), (2, 2), (2, 4)]
    keys, numbers = found.keys(TEXTS, TRAIN)
    assert keys.tolist() == [5, 6, 6, 7, 8, 9, 6, 7] and numbers.tolist() == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
    ]
    digests = [(number, int.from_bytes(digest, "big")) for number, digest in found.digests(TRAIN)]
    assert digests == list(enumerate([5, 6, 8, 6]))
