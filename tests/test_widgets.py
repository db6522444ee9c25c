import base64
import re

import ipywidgets
import pytest
import torch

from lvlmva_lite.critic import Case, Critique, Verdict
from lvlmva_lite.segmentation import ppeps_wgm
from lvlmva_lite.widgets import case_browser, segment_browser


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def segmentations(images):
    return {n_segments: ppeps_wgm(images[:, 0] - 0.5, n_segments) for n_segments in (4, 2)}


@pytest.fixture
def links(monkeypatch):
    """Pairs (source, target) that get linked in the browser, where no kernel is needed."""
    made, link = [], ipywidgets.jslink
    monkeypatch.setattr(ipywidgets, "jslink", lambda *ends: made.append(ends) or link(*ends))
    return made


def pngs(page):
    return [base64.b64decode(data) for data in re.findall(r'base64,([^"]+)"', page.value)]


def test_the_slider_moves_the_segments_of_every_image(images, segmentations, links):
    view = segment_browser(images, segmentations, [2, 0])
    choice, slider, outer = view.children
    assert slider.options == (("2", 2), ("4", 4))
    assert len(choice.options) == len(outer.children) == 2
    assert ((choice, "index"), (outer, "selected_index")) in links
    for i, stack in zip([2, 0], outer.children, strict=True):
        assert ((slider, "index"), (stack, "selected_index")) in links
        assert len(stack.children) == 2
        for n_segments, page in zip([2, 4], stack.children, strict=True):
            assert pngs(page)[0].startswith(b"\x89PNG")
            first = segmentations[n_segments].shares[i, 0]
            assert f"A {first:.0%}" in page.value
            assert f"its {n_segments} segments" in page.value
    pictures = {pngs(page)[0] for stack in outer.children for page in stack.children}
    assert len(pictures) == 4


def test_unused_segments_are_not_named(images):
    maps = torch.zeros(1, 12, 12)
    maps[0, 3, 3] = 1.0
    page = segment_browser(images[:1], {3: ppeps_wgm(maps, 3)}, [0]).children[2].children[0].children[0]
    assert "A 100%" in page.value
    assert "B " not in page.value.partition("<p")[2]
    page = segment_browser(images[:1], {3: ppeps_wgm(-maps, 3)}, [0]).children[2].children[0].children[0]
    assert "evidence: none" in page.value


def test_nothing_to_show_is_an_error(images, segmentations):
    with pytest.raises(ValueError, match="nothing to show"):
        segment_browser(images, {}, [0])
    with pytest.raises(ValueError, match="nothing to show"):
        segment_browser(images, segmentations, [])


def test_text_in_a_case_stays_text(images, segmentations, links):
    case = Case("x-0", images[0], segmentations[2].labels[0], 2, 'a "1"', "words", torch.ones(28, 28))
    critique = Critique("x-0", "someone", "<b>bold</b>")
    view = case_browser([case], [Verdict("x-0", "j", ("spurious", "undecided"))], [critique], [0])
    page = view.children[1].children[0]
    assert "&lt;b&gt;bold" in page.value
    assert "A: spurious, B: undecided" in page.value
    assert ((view.children[0], "index"), (view.children[1], "selected_index")) in links
