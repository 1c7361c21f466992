"""What a format makes of an input, through the same calls as the command."""

import collections
import json
import pathlib
import pickle

from vlbeit_jax.prepare.formats import FORMATS
from vlbeit_jax.prepare.formats.base import Options, Plan, Unit, plan_of, read_unit
from vlbeit_jax.prepare.item import Item


class Reading:
    """The plan of an input, its items, and counts of what is none.

    The plan goes through JSON, and a unit through pickle, as on the way to another process.
    """

    def __init__(self, name: str, *paths: pathlib.Path, **options):
        form, chosen = FORMATS[name], Options(**options)
        self.plan: Plan = plan_of(form, paths, chosen)
        units = [Unit(**json.loads(json.dumps(vars(unit)))) for unit in self.plan.units]
        units = pickle.loads(pickle.dumps(units))
        found: list[Item] = [item for unit in units for item in read_unit(form, unit, chosen)]
        self.items = [item for item in found if not (item.fault or item.skip)]
        self.faults = dict(collections.Counter(item.fault for item in found if item.fault))
        self.skipped = dict(
            self.plan.skipped + collections.Counter(item.skip for item in found if item.skip)
        )
        self.repairs = dict(collections.Counter(r for item in found for r in item.repairs))

    @property
    def pairs(self) -> list[tuple[bytes | None, tuple[str, ...]]]:
        """Pictures with captions."""
        return [(item.image, item.captions) for item in self.items]

    @property
    def texts(self) -> list[str]:
        """Documents."""
        return [item.text for item in self.items if item.text]
