"""Three folds of the emoji by their groups, so that each picture is tested once."""

from vlbeit_jax.data.identity import TEST, TRAIN, VALIDATION, group_key

FOLDS = 3
VALIDATION_PART = 6  # One group of six of the folds that are not tested.


def fold_of(group: str) -> int:
    """Returns the fold that tests a group: 0, 1 or 2."""
    return group_key(group) % FOLDS


def split_of(group: str, fold: int) -> str:
    """Returns the split of a group when ``fold`` is tested."""
    if fold_of(group) == fold:
        return TEST
    return VALIDATION if group_key(group) // FOLDS % VALIDATION_PART == 0 else TRAIN
