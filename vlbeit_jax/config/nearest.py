"""What the user may have meant: by its spelling, and settings also by their words and meaning."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

# What other programs call things, in words that names and meanings of settings have here.
WORDS = {
    "lr": "learning rate",
    "bs": "batch size",
    "wd": "weight decay",
    "grad": "gradient",
    "betas": "beta",
    "momentum": "beta1",
    "warm": "warmup",
    "epoch": "epochs",
    "iteration": "steps",
    "iterations": "steps",
    "iters": "steps",
    "training": "optimizer",
    "dim": "width",
    "hidden": "width",
    "embed": "width",
    "mlp": "ffn",
    "layers": "depth",
    "blocks": "depth",
    "img": "image",
    "resolution": "image size",
    "dropout": "drop path",
    "stochastic": "drop path",
    "vocab": "vocabulary",
    "len": "length",
    "seq": "text length",
    "sequence": "text length",
    "mask": "masked",
    "dtype": "matmul precision",
    "precision": "matmul precision",
    "codebook": "codes",
    "dataset": "sources",
    "datasets": "sources",
    "data": "sources",
    "accumulation": "accumulate",
    "accum": "accumulate",
    "save": "checkpoint",
    "ckpt": "checkpoint",
    "eval": "evaluate",
    "val": "evaluate",
    "validation": "evaluate",
    "interval": "every",
    "freq": "every",
    "frequency": "every",
    "init": "start from",
    "resume": "start from",
    "pretrained": "start from",
    "finetune": "start from",
    "output": "workdir out",
    "outdir": "workdir out",
    "dir": "folder",
    "model": "workdir",
    "checkpoint": "workdir",
    "cpus": "workers",
    "gpus": "devices",
    "tp": "tensor",
}
# Words that say little: they count, but less than the others of a name.
WEAK = frozenset({"num", "n", "per", "total", "use", "max", "size", "ratio", "prob", "rate"})
WEAK_COUNTS = 0.3
SPELT = 0.78  # Names this similar may be each other's misspelling.
MEANT = 0.6  # Share of the words that must be found.
MOST = 3  # Suggestions.


def nearest(given: str, known: Mapping[str, str]) -> list[str]:
    """Returns the known paths that were probably meant, the likeliest first.

    Args:
      given: a path that does not exist, with dots between sections and names.
      known: meanings of all settings and sections, by path.

    Returns:
      All paths that end like the given one, because a section may have moved; or else the one that
      is spelt like it or has its words; or nothing.
    """
    names = given.split(".")
    for first in range(1, len(names) - 1):
        tail = "." + ".".join(names[first:])
        if ends := [path for path in known if path.endswith(tail)]:
            return ends[:MOST]
    scores = {path: _likeness(given, path, meaning) for path, meaning in known.items()}
    ordered = sorted(known, key=lambda path: -scores[path])
    if not ordered or not scores[ordered[0]]:
        return []
    # Several sections may have the setting.
    equal = [path for path in ordered if _name(path) == names[-1]]
    return equal[:MOST] if ordered[0] in equal else ordered[:1]


def spelt_like(given: str, known: Iterable[str]) -> str:
    """Returns the known name that is spelt most like the given one; "" if none is close."""
    return next(iter(difflib.get_close_matches(given, known, n=1)), "")


def or_list(names: Sequence[str]) -> str:
    """Returns "a, b or c"."""
    *rest, last = names
    return f"{', '.join(rest)} or {last}" if rest else last


def _name(path: str) -> str:
    return path.rpartition(".")[2]


def _likeness(given: str, path: str, meaning: str) -> float:
    """Returns how likely the path was meant; 0 if it was not."""
    name, own_name = _name(given), _name(path)
    spelt = difflib.SequenceMatcher(None, name, own_name).ratio()
    if sorted(name) == sorted(own_name):
        spelt = 1.0  # Two letters changed places, as in "fromat".
    meant = _shared_words(name, own_name, meaning)
    if spelt < SPELT and meant < MEANT:
        return 0.0
    # Of two settings with equal names, that of the section which the user has named.
    sections = given.removesuffix(name), path.removesuffix(own_name)
    same = difflib.SequenceMatcher(None, *sections).ratio() if sections[0] else 0.0
    return max(1.2 * spelt * (spelt >= SPELT), meant) + 0.2 * meant + 0.5 * same


def _shared_words(name: str, own_name: str, meaning: str) -> float:
    """Returns which share of the words of a name another name has, or its meaning says."""
    own, said, asked = _words(own_name), _words(meaning), _words(name)
    if not asked:
        return 0.0
    weights = [WEAK_COUNTS if word in WEAK else 1.0 for word in asked]
    similarities = [max(_one(word, own, said), _expanded(word, own, said)) for word in asked]
    share = sum(map(float.__mul__, weights, similarities)) / sum(weights)
    # Of "lr" and "lr_decay", the second has a word that nobody asked for.
    wanted = [*asked, *(each for word in asked for each in WORDS.get(word, "").split())]
    unasked = sum(not any(_alike(word, each) for each in wanted) for word in own)
    return share / (1 + 0.05 * unasked)


def _expanded(word: str, own: Sequence[str], said: Sequence[str]) -> float:
    meant = WORDS.get(word, "").split()
    shares = [_one(each, own, said) for each in meant]
    # All words of a synonym count as much as the word itself, and a little more with it.
    direct = 0.1 * _one(word, own, ()) if shares else 0.0
    return sum(shares) / len(shares) + direct if shares else 0.0


def _one(word: str, own: Sequence[str], said: Sequence[str]) -> float:
    if any(_alike(word, each) for each in own):
        return 1.0
    return 0.8 if any(_alike(word, each, 5) for each in said) else 0.0


def _alike(word: str, other: str, least: int = 4) -> bool:
    """Whether two words are equal, or one is the other's beginning, as in "warm" and "warmup"."""
    if word == other:
        return True
    short, long = sorted((word, other), key=len)
    return len(short) >= least and long.startswith(short)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+[0-9]*", text.lower().replace("warm-up", "warmup"))
