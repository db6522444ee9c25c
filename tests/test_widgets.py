import pytest
import torch

from lvlmva_lite.critic import Case, Critique, Verdict
from lvlmva_lite.segmentation import ppeps_wgm
from lvlmva_lite.widgets import case_browser


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def titles(view):
    return [view.get_title(k) for k in range(len(view.children))]


def test_nothing_to_show_is_an_error():
    with pytest.raises(ValueError, match="nothing to show"):
        case_browser([], [], [], [])


def test_text_in_a_case_stays_text_and_the_first_is_open(images):
    segments = ppeps_wgm(images[:, 0] - 0.5, 2)
    cases = [
        Case(f"x-{i}", images[i], segments.labels[i], 2, 'a "1"', "words", torch.ones(28, 28))
        for i in range(2)
    ]
    verdicts = [
        Verdict("x-0", "j", ("spurious", "undecided")),
        Verdict("x-1", "j", ("relevant", "background")),
    ]
    critiques = [Critique("x-0", "someone", "<b>bold</b>"), Critique("x-1", "someone", "plain")]
    view = case_browser(cases, verdicts, critiques, [1, 0])
    assert titles(view) == ['x-1: a a "1"', 'x-0: a a "1"']
    assert view.selected_index == 0
    assert "A: relevant, B: background" in view.children[0].value
    assert "&lt;b&gt;bold" in view.children[1].value
    assert "A: spurious, B: undecided" in view.children[1].value
