"""The pictures of which a reader chooses one, also in a browser, without a kernel."""

import re

import matplotlib.pyplot as plt
import pytest
from browser import Browser, executable

from lvlmva_lite import plots

LABELS = ["start", "step 1 & 2", '"end"']


def numbered(k):
    figure, axis = plt.subplots(figsize=(1, 1))
    axis.set_title(k)
    return figure


def test_every_picture_is_in_the_page_with_its_words_and_figures_are_closed():
    before = plt.get_fignums()
    page = plots.slider(numbered, LABELS, name="step", alt="Ellipses.").data
    assert plt.get_fignums() == before
    pictures = re.findall(r"<img([^>]*)>", page)
    assert len({re.search(r'src="([^"]+)"', one)[1] for one in pictures}) == 3
    assert ["display: none" in one for one in pictures] == [True, False, True]
    assert 'alt="Ellipses. step: step 1 &amp; 2"' in pictures[1]
    assert "http" not in re.sub(r"base64,[^\"]+", "", page)
    assert "<script" not in page


@pytest.mark.parametrize(
    ("labels", "first", "named"),
    [
        (["one"], None, r"two or more, .* \['one'\]"),
        (["a|b", "c"], None, "without"),
        (["a", "b"], 2, r"0 \.\. 1, got 2"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused_before_it_is_drawn(labels, first, named):
    with pytest.raises(ValueError, match=named):
        plots.slider(lambda k: pytest.fail("drawn"), labels, name="step", alt="", first=first)


@pytest.mark.slow
@pytest.mark.skipif(executable() is None, reason="there is no Chromium or Chrome; CHROMIUM names one")
@pytest.mark.parametrize("menu", [False, True])
def test_keys_and_choices_show_the_picture_of_the_value(menu, tmp_path):
    page = tmp_path / "page.html"
    made = plots.slider(numbered, LABELS, name="step", alt="Ellipses.", menu=menu).data
    page.write_text(f"<!DOCTYPE html><html lang=en><meta charset=utf-8><title>t</title>{made}")
    shown = "[...document.images].map((one, k) => one.checkVisibility() ? k : -1).filter(k => k >= 0)"
    said = "document.querySelector('output').textContent"
    with Browser(executable()) as browser:
        browser.open(page.as_uri())
        assert browser.evaluate(shown) == [1]
        browser.evaluate("document.querySelector('.pictures :is(input, select)').focus()")
        browser.press("ArrowDown" if menu else "ArrowRight")
        if menu:  # a headless menu opens no list: choose as a script would
            browser.evaluate(
                "(e => { e.value = 2; e.dispatchEvent(new Event('input', {bubbles: true})); })"
                "(document.querySelector('select'))"
            )
        assert browser.evaluate(shown) == [2]
        assert browser.evaluate(said) == '"end"'
        assert browser.messages == []
