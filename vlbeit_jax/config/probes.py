"""Settings of probes while pretraining."""

import dataclasses

from vlbeit_jax.config.schema import AT_LEAST_0, POSITIVE, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """What frozen features are worth on other data, measured now and then; trains nothing."""

    every: int = setting(0, "steps between probes; 0: none", AT_LEAST_0, may_change=True)
    images: str = setting(
        "", "prepared labelled images, such as sample:emoji; empty: none", may_change=True
    )
    texts: str = setting("", "prepared labelled texts; empty: none", may_change=True)
    pairs: str = setting(
        "", "prepared pairs: retrieval without training; empty: none", may_change=True
    )
    rows: int = setting(
        2000, "most rows of a split that are used, evenly spaced", POSITIVE, may_change=True
    )
    neighbours: int = setting(20, "nearest rows that vote", POSITIVE, may_change=True)
    shots: int = setting(
        10, "labelled rows of each class for the few-shot ridge", POSITIVE, may_change=True
    )
    # No strength is chosen on what is probed; big_vision's few-shot evaluator has this one.
    strength: float = setting(1024.0, "strength of the ridge", POSITIVE, may_change=True)

    def training_problems(self) -> list[str]:
        """Returns what keeps a run from probing."""
        if self.every and not (self.images or self.texts or self.pairs):
            return ["probes.every needs data: name a set in probes.images, texts or pairs"]
        return []
