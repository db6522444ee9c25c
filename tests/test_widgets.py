import base64
import re

import pytest
import torch

from lvlmva_lite.critic import Case, Critique, Verdict
from lvlmva_lite.segmentation import ppeps_wgm
from lvlmva_lite.widgets import case_browser, explanation_explorer, key_field, strongest

pytestmark = pytest.mark.usefixtures("no_pyplot_figures")


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def pngs(page):
    return [base64.b64decode(data) for data in re.findall(r'base64,([^"]+)"', page.value)]


def titles(view):
    return [view.get_title(k) for k in range(len(view.children))]


@pytest.fixture(scope="module")
def segmentations(images):
    return {j: ppeps_wgm(images[:, 0] - 0.5, j) for j in (4, 2)}


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


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_the_strongest_pixels_hold_the_share_and_one_fewer_does_not(share):
    effect = torch.rand(9, 7, generator=torch.Generator().manual_seed(1)) - 0.4
    chosen = strongest(effect, share)
    positive = effect.clamp_min(0).double()
    held = positive[chosen].sum() / positive.sum()
    assert held >= share - 1e-9
    if chosen.any():
        assert held - positive[chosen].min() / positive.sum() < share
        assert positive[chosen].min() >= positive[~chosen].max()
    assert not chosen[effect <= 0].any()


def test_nothing_is_strongest_where_nothing_speaks_for_the_class():
    assert not strongest(-torch.ones(3, 3), 1.0).any()
    with pytest.raises(ValueError, match="between 0 and 1"):
        strongest(torch.ones(3, 3), 1.2)


def test_the_explorer_shows_the_first_image_and_follows_its_controls(images, segmentations):
    maps = {"before": images[:, 0] - 0.5, "after": torch.ones(3, 12, 12)}
    view = explanation_explorer(images, maps, segmentations[2], names=["a", "b<", "c"])
    chosen, share, shown = view.children
    assert pngs(shown)[0].startswith(b"\x89PNG")
    assert "after: 50% of the evidence lies on 50.0% of the pixels" in shown.value
    first = shown.value
    share.value = 1.0
    assert "after: 100% of the evidence lies on 100.0% of the pixels" in shown.value
    chosen.value = 1
    assert "b&lt;" in shown.value
    assert shown.value != first
    with pytest.raises(ValueError, match="nothing to show"):
        explanation_explorer(images, {})
    with pytest.raises(ValueError, match="give one map an image"):
        explanation_explorer(images, {"x": torch.ones(2, 12, 12)})


@pytest.fixture
def keys():
    """A field of the keys a and b, and the list of what was done."""
    done = []
    return key_field({"a": lambda: done.append("a"), "b": lambda: done.append("b")}), done


def test_keys_act_at_once_and_others_do_nothing(keys):
    field, done = keys
    for typed in ("a", "aB", "aBx", "aBxab"):
        field.value = typed
    assert done == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("before", "after", "acts"),
    [
        ("aab", "aa", ""),
        ("aab", "", ""),
        ("aab", "b", ""),
        ("aab", "ab", ""),
        ("ab", "aab", "a"),
        ("xx", "xbx", "b"),
    ],
)
def test_what_is_removed_or_changed_in_the_field(keys, before, after, acts):
    field, done = keys
    field.value = before
    done.clear()
    field.value = after
    assert "".join(done) == acts
