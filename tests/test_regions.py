"""Regions that an offline critic measures, on scenes drawn here whose truth is known."""

import re

import numpy as np
import pytest
import torch
from skimage.draw import disk

from lvlmva_lite.critic import Case, LexiconCritic, class_description, regions

SKIN, BROWN = (0.85, 0.65, 0.55), (0.35, 0.2, 0.12)


def painted(size, *discs, ground=SKIN):
    """A picture (3, H, W) with discs (row, column, radius, colour) as shares of its side."""
    image = np.empty((3, size, size))
    image[:] = np.asarray(ground)[:, None, None]
    masks = []
    for row, column, radius, colour in discs:
        mask = np.zeros((size, size), bool)
        mask[disk((row * size, column * size), radius * size, shape=mask.shape)] = True
        image[:, mask] = np.asarray(colour)[:, None]
        masks.append(mask)
    return image, masks


@pytest.mark.parametrize("size", [48, 64, 128])
@pytest.mark.parametrize("colour", [(0.1, 0.7, 0.3), (0.1, 0.4, 0.9), (0.95, 0.85, 0.1), (0.7, 0.7, 0.72)])
def test_a_dyed_patch_at_the_rim_is_found_and_the_lesion_is_not_it(size, colour):
    image, (lesion, patch) = painted(size, (0.5, 0.5, 0.15, BROWN), (0.1, 0.95, 0.2, colour))
    found = regions.coloured_patch(image)
    assert (found & patch).sum() >= 0.9 * patch.sum()
    assert not (found & lesion).any()
    seen = regions.lesion(image)
    assert (seen & lesion).sum() >= 0.9 * lesion.sum()
    assert not (seen & patch).any()


def test_a_brown_lesion_at_the_rim_is_no_patch():
    image, _ = painted(64, (0.2, 0.9, 0.2, BROWN))
    assert not regions.coloured_patch(image).any()


def test_a_grey_image_has_no_coloured_patch():
    image, _ = painted(64, (0.1, 0.9, 0.2, (0.9, 0.9, 0.9)), ground=(0.4, 0.4, 0.4))
    assert not regions.coloured_patch(image[:1]).any()


def knee(letter: bool):
    image = np.full((1, 64, 64), 0.3)
    image[0, 8:30, 14:50] = image[0, 34:60, 14:50] = 0.5
    if letter:
        image[0, 4:13, 56:58] = image[0, 11:13, 56:61] = 0.95
    return image


def test_a_letter_is_found_where_it_is_and_only_there():
    found = regions.letter(knee(True))
    assert found[4:13, 56:58].all()
    assert not found[:, :50].any()
    assert not regions.letter(knee(False)).any()


def spurious(image, description, *segments):
    """Whether the lexicon calls each segment spurious."""
    labels = torch.full(image.shape[1:], -1)
    for j, where in enumerate(segments):
        labels[where] = j
    case = Case(
        "x", torch.from_numpy(image).float(), labels, len(segments), "c", description,
        torch.ones(image.shape[1:]),
    )  # fmt: skip
    said = re.findall(r"Segment \w+ is (\w+)\.$", LexiconCritic().criticise(case).text, re.MULTILINE)
    return tuple(kind == "spurious" for kind in said)


def test_verdicts_on_a_knee_follow_the_description_that_ships():
    beside, across = (slice(3, 14), slice(55, 62)), (slice(28, 36), slice(15, 49))
    assert spurious(knee(True), class_description("knee"), beside, across) == (True, False)
    # The same place without a letter is nothing that the expert dismisses.
    assert spurious(knee(False), class_description("knee"), beside, across) == (False, False)


def test_two_ways_to_describe_a_lesion():
    image, (lesion, patch) = painted(64, (0.5, 0.5, 0.15, BROWN), (0.1, 0.95, 0.2, (0.1, 0.7, 0.3)))
    skin = np.zeros((64, 64), bool)
    skin[50:, :10] = True
    where = [torch.from_numpy(mask) for mask in (lesion, patch & ~lesion, skin)]
    # "Only the lesion counts" dismisses things that were put there, though no word names them.
    assert spurious(image, class_description("skin"), *where) == (False, True, False)
    assert spurious(image, class_description("skin-bandages"), *where) == (False, True, False)
    # Words that neither name the bandage nor say that nothing else counts leave it alone.
    assert spurious(image, "The lesion tells.", *where) == (False, False, False)
    across, beside = (slice(28, 36), slice(15, 49)), (slice(3, 14), slice(55, 62))
    assert spurious(knee(True), class_description("knee-joint"), across, beside) == (False, True)
