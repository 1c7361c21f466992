"""Letters that a font lacks are told apart: a box for each of them would say nothing."""

import pathlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vlbeit_jax.runtime import lettering


def drawn(text):
    image = Image.new("RGB", (400, 20), (255, 255, 255))
    lettering.write(ImageDraw.Draw(image), (0, 0), text, (0, 0, 0))
    return np.asarray(image)


@pytest.fixture(autouse=True)
def no_system_fonts(monkeypatch):
    monkeypatch.setattr(lettering, "FOLDERS", ())
    monkeypatch.setattr(lettering, "FOLDERS_OF_MACOS", ())
    for each in (lettering._font_of, lettering._other_font):
        each.cache_clear()
    yield
    for each in (lettering._font_of, lettering._other_font):
        each.cache_clear()


def test_letters_without_a_font_are_drawn_as_code_points():
    assert np.array_equal(drawn("a 猫 b"), drawn("a U+732B  b"))
    assert np.any(drawn("猫") != drawn("犬"))
    for text in ("Größe, Ωmega, пароход", "a\tb", ""):
        (usual,) = {font for _, font in lettering._runs(text)} or {lettering._usual_font()}
        assert usual is lettering._usual_font()
    assert lettering.width("ab") == lettering._usual_font().getlength("ab")


def test_a_font_of_the_system_is_used_where_the_usual_one_has_no_letter(tmp_path, monkeypatch):
    """Here any font stands for one with Chinese letters."""
    path = tmp_path / "deep" / "NotoSansCJK-Regular.ttf"
    path.parent.mkdir()
    usual = str(lettering._usual_font().path)
    path.write_bytes(pathlib.Path(usual).read_bytes())
    monkeypatch.setattr(lettering, "FOLDERS", (str(tmp_path),))
    own = lettering._has
    monkeypatch.setattr(
        lettering,
        "_has",
        lambda font, letter: own(font, letter) and (letter != "b" or font.path != usual),
    )
    assert [run for run, _ in lettering._runs("abc")] == ["a", "b", "c"]
    assert [font.path for _, font in lettering._runs("b")] == [str(path)]
