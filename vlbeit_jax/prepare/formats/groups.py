"""Which members of a tar make one example: the rules for names.

webdataset's rule is that the key of a member ends at the first dot of its file name. Where that
would put several pictures into one example (IMG.2020.000.png, IMG.2020.001.png), the key ends at
the last dot, unless what stands before it names a part (000.image.jpg, 000.mask.png).
"""

import collections
import dataclasses
from collections.abc import Iterator, Sequence

from vlbeit_jax.prepare.formats.pictures import TAKEN
from vlbeit_jax.prepare.formats.tars import Entry

TEXTS = ("txt", "caption", "captions", "text", "cap")
REPEATED, CROWDED = "repeated_name", "several_pictures_and_texts"


@dataclasses.dataclass
class Group:
    """Members that make one example.

    Attributes:
      key: what their names have in common.
      parts: by the rest of the name in small letters, without its dot: "jpg", "image.jpg".
      fault: why the names do not tell which members belong together.
    """

    key: str
    parts: dict[str, Entry] = dataclasses.field(default_factory=dict)
    fault: str = ""

    def with_suffix(self, *suffixes: str, prefer: str = "") -> list[str]:
        """Returns the parts with one of some suffixes: those without another name come first.

        Args:
          *suffixes: in small letters.
          prefer: begins the names of the parts that come next.
        """
        matching = [part for part in self.parts if part.rpartition(".")[2] in suffixes]
        return sorted(matching, key=lambda part: ("." in part, not part.startswith(prefer)))

    def is_crowded(self) -> bool:
        """Returns whether the group has several pictures and several texts with other names."""
        return all(
            len(parts) > 1 and "." in parts[1]
            for parts in (self.with_suffix(*TAKEN), self.with_suffix(*TEXTS))
        )


def groups_of(entries: Sequence[Entry]) -> list[Group]:
    """Returns the groups of members, in the order of their first ones.

    Members need not follow each other. Where a name occurs twice, only those that follow each other
    are one group, and all groups of such a key must have the same parts. Later ones get another
    key: "image", "image~2".

    Args:
      entries: whose names have a dot.
    """
    named = list(zip(_keys([entry.name for entry in entries]), entries, strict=True))
    names = collections.Counter(name for name, _ in named)
    repeated = {key for (key, _), count in names.items() if count > 1}
    groups: list[Group] = []
    latest: dict[str, Group] = {}
    last = ""
    for (key, part), entry in named:
        group = latest.get(key)
        if group is None or (key in repeated and (key != last or part in group.parts)):
            group = latest[key] = Group(key)
            groups.append(group)
        group.parts[part] = entry
        last = key
    _number(groups, repeated)
    return groups


def _number(groups: Sequence[Group], repeated: set[str]) -> None:
    """Gives groups of one key a key each, and a fault if they lack different parts."""
    of_key: dict[str, list[Group]] = {}
    for group in groups:
        if group.key in repeated:
            of_key.setdefault(group.key, []).append(group)
    taken = {group.key for group in groups}
    for key, same_key in of_key.items():
        unequal = len({frozenset(group.parts) for group in same_key}) > 1
        number = 1
        for place, group in enumerate(same_key):
            group.fault = REPEATED if unequal else ""
            if place:
                number = next(each for each in _from(number + 1) if f"{key}~{each}" not in taken)
                group.key = f"{key}~{number}"


def _from(number: int) -> Iterator[int]:
    while True:
        yield number
        number += 1


def _keys(names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the key and the part of each name."""
    first, last = [_cut(name, 1) for name in names], [_cut(name, -1) for name in names]
    dotted = [place for place in range(len(names)) if first[place] != last[place]]
    if not dotted or not _collide(first):
        return first
    if not _are_names(first, last, dotted):
        return last
    # With dots in keys too, parts begin at the last dot but one: photo.000.image.jpg.
    return [_cut(name, -2) for name in names] if _crowded(first) else first


def _are_names(
    first: Sequence[tuple[str, str]], last: Sequence[tuple[str, str]], dotted: Sequence[int]
) -> bool:
    """Returns whether what stands between two dots names a part, and does not belong to the key.

    Args:
      first: keys and parts, cut at the first dot.
      last: the same, cut at the last dot.
      dotted: where they differ.
    """
    suffixes: dict[str, set[str]] = {}
    for place in dotted:
        key, suffix = last[place]
        suffixes.setdefault(key, set()).add(suffix)
    if any(endings & set(TEXTS) for endings in suffixes.values()):
        # Then a picture and a text have one key, if it ends at the last dot.
        return not any(endings & set(TEXTS) and endings & TAKEN for endings in suffixes.values())
    keys, parts = {first[place][0] for place in dotted}, {first[place][1] for place in dotted}
    numbered = any(map(str.isdigit, "".join(part.rpartition(".")[0] for part in parts)))
    return len(parts) < len(keys) and not numbered


def _cut(name: str, dot: int) -> tuple[str, str]:
    folder, slash, file = name.rpartition("/")
    places = [place for place, letter in enumerate(file) if letter == "."]
    place = places[0] if dot == 1 else places[max(dot, -len(places))]
    return folder + slash + file[:place], file[place + 1 :].lower()


def _crowded(named: Sequence[tuple[str, str]]) -> bool:
    """Returns whether a key has several pictures and several texts: those of several examples."""
    groups: dict[str, Group] = {}
    for key, part in named:
        groups.setdefault(key, Group(key)).parts[part] = Entry(part, 0)
    return any(group.is_crowded() for group in groups.values())


def _collide(named: Sequence[tuple[str, str]]) -> bool:
    """Returns whether a key has several pictures or several texts."""
    first_parts: dict[tuple[str, bool], str] = {}
    for key, part in named:
        suffix = part.rpartition(".")[2]
        if suffix in TAKEN or suffix in TEXTS:
            if first_parts.setdefault((key, suffix in TAKEN), part) != part:
                return True
    return False
