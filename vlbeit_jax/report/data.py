"""Which data a run was trained on, and on which the figures of its page were measured."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vlbeit_jax.data.source import PreparedSet, open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.report.markup import Child, Html, Section, element, join, table, words
from vlbeit_jax.types import Kind

KINDS = {
    Kind.IMAGES: "pictures",
    Kind.PAIRS: "pictures with captions",
    Kind.TEXTS: "texts",
    Kind.TOKENS: "texts, packed into rows",
    Kind.LABELLED_IMAGES: "pictures with a class",
    Kind.LABELLED_TEXTS: "texts with a class",
    Kind.QUESTIONS: "questions about pictures",
    Kind.STATEMENTS: "statements about two pictures",
    Kind.MASKS: "pictures with a class for each pixel",
}
FIGURES = "figures of this page"


class Use(NamedTuple):
    """One use of a prepared set.

    Attributes:
      place: its folder, or ``sample:NAME``.
      purpose: what it was used for.
    """

    place: str
    purpose: str


def open_or_reason(place: str) -> PreparedSet | str:
    """Returns a set, or why it cannot be opened: a run may outlive its data."""
    try:
        return open_set(place)
    except UsageError as error:
        return str(error)


def sets_at(places: Iterable[str], *kinds: Kind) -> list[PreparedSet]:
    """Returns the sets of some kinds that can still be opened, each one once."""
    outcomes = map(open_or_reason, places)
    opened = [each for each in outcomes if isinstance(each, PreparedSet) and each.kind in kinds]
    return list({each.fingerprint: each for each in opened}.values())


def scored_by(results: Mapping[str, Any] | None) -> list[Use]:
    """Returns the sets of an evaluation, with the splits that it scored."""
    uses = []
    for each in (results or {}).get("data", []):
        splits = ", ".join(each.get("splits", []))
        uses.append(Use(each["folder"], f"{FIGURES} ({splits})" if splits else FIGURES))
    return uses


def data_section(uses: Sequence[Use], description: Mapping[str, Any]) -> Section:
    """Returns a table of the sets, with their records by split.

    Args:
      uses: of all sets; one that is used more than once has one row.
      description: what the run's checkpoint says of the run.
    """
    head = ("Data set", "Used for", "Records", "Licence", "Comes from")
    rows = _rows(uses, _fingerprints(description))
    return Section(
        "Data",
        [
            words(
                "A run is trained on the records of the split train. The records of the other "
                "splits are held out: no picture and no text is on both sides."
            ),
            table("Data sets, with the number of records by split", head, rows),
        ],
    )


def _rows(uses: Sequence[Use], trained_on: set[str]) -> Iterator[list[Child]]:
    opened = {use.place: open_or_reason(use.place) for use in uses}
    by_content: dict[str, list[Use]] = {}
    for use in uses:
        outcome = opened[use.place]
        key = outcome.fingerprint if isinstance(outcome, PreparedSet) else use.place
        by_content.setdefault(key, []).append(use)
    for same in by_content.values():
        place, outcome = same[0].place, opened[same[0].place]
        purposes = "; ".join(dict.fromkeys(use.purpose for use in same))
        name = element("code", place)
        if isinstance(outcome, str):
            yield [name, purposes, f"cannot be opened now: {outcome}", "not known", "not known"]
            continue
        is_training = any(not use.purpose.startswith(FIGURES) for use in same)
        if is_training and trained_on and outcome.fingerprint not in trained_on:
            purposes += ". It was prepared anew since: the run was trained on other records"
        yield _row(name, purposes, outcome)


def _row(name: Html, purposes: str, prepared: PreparedSet) -> list[Child]:
    meta = prepared.meta
    counts = [f"{count:,} {split}" for split, count in meta["counts"].items()]
    out = {**meta.get("left_out", {}), **meta.get("dropped", {})}
    counts += [f"{count:,} left out ({reason.replace('_', ' ')})" for reason, count in out.items()]
    lines = [element("span", each) for each in counts]
    kind = element("span", KINDS[prepared.kind], class_="note")
    source = str(meta.get("source") or "not stated")
    return [
        [element("strong", name), kind],
        purposes,
        join(lines, "<br>"),
        meta.get("licence") or "not stated",
        source,
    ]


def _fingerprints(description: Mapping[str, Any]) -> set[str]:
    """Returns the fingerprints of the sets that a run was trained on."""
    return {
        name
        for key, value in description.get("must_match", {}).items()
        if key.endswith(".sources")
        for name in value
    }
