"""Markers that the lexicon was not made for: put where they say, and counted by hand."""

import numpy as np
import pytest

from lvlmva_lite.experiments import unseen_markers as experiment
from lvlmva_lite.experiments.unseen_markers import LOOKS, SHAPES, marked, unseen_markers


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("look", LOOKS)
def test_a_marker_changes_its_own_pixels_alone_and_looks_as_it_says(shape, look):
    image = np.full((64, 64), 0.5)
    image[:, :20] = 0.2
    changed, marker = marked(image, shape, look, np.random.default_rng(3))
    assert marker.any()
    assert marker.mean() < 0.2
    assert (changed[~marker] == image[~marker]).all()
    assert (changed[marker] != image[marker]).all()
    if look == "black":
        assert changed[marker].min() == 0.0
        assert (changed[marker] < image[marker]).all()
    else:
        assert (changed[marker] > image[marker]).all()
    rise = (changed - image)[marker].max()
    full, _ = marked(image, shape, "bright", np.random.default_rng(3))
    if look == "40 % contrast":
        assert rise == pytest.approx(0.4 * (full - image).max())
    if look == "framed":
        rows, columns = np.nonzero(marker)
        assert marker[rows.min(), columns.min() : columns.max() + 1].all()
        assert marker[rows.min() : rows.max() + 1, columns.max()].all()


def test_what_is_counted(monkeypatch):
    """A region that holds everything finds every marker and cries at every bare image; an empty one neither."""
    images = np.full((5, 64, 64), 0.3)
    for everything in (True, False):
        monkeypatch.setattr(
            experiment.regions, "letter", lambda image, v=everything: np.full(image.shape[1:], v)
        )
        table = unseen_markers(images)
        assert (table["seen"] == float(everything)).all()
        assert (table["n"] == 5).all()
    assert list(table["marker"])[-1] == "none"
    assert len(table) == len(SHAPES) * len(LOOKS) + 1


def test_the_lexicon_does_best_on_what_it_was_made_for():
    table = unseen_markers().set_index("marker")["seen"]
    assert table["bright letter"] > table["40 % contrast letter"] > table["black letter"]
    assert table["bright letter"] - table["none"] > 0.5


def test_an_unknown_marker_is_refused():
    with pytest.raises(ValueError, match="'ring'"):
        marked(np.zeros((64, 64)), "ring", "bright", np.random.default_rng(0))
