"""What the tests of tars share."""

from tests.make_data import write_tar
from vlbeit_jax.prepare.formats import webdataset
from vlbeit_jax.prepare.formats.base import read_all

FOUR = [("0.jpg", b"x" * 700), ("0.txt", b"first"), ("1.jpg", b"y" * 700), ("1.txt", b"second")]


def items(path, members, mode="w"):
    found = read_all(webdataset, [write_tar(path, members, mode)])
    return [item for item in found if not item.skip]
