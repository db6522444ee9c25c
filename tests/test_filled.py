from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal

from lvlmva_lite.segmentation import filled, ppeps_wgm

SIZE = (24, 20)


def pixels():
    rows, columns = ((np.arange(n) + 0.5) / n for n in SIZE)
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)


def maps(n=3, seed=0):
    """Three bumps of effect each, on noise of both signs."""
    draw = np.random.default_rng(seed)
    out = 0.05 * draw.normal(size=(n, *SIZE))
    for one in out:
        for _ in range(3):
            middle, covariance = draw.uniform(0.2, 0.8, 2), np.diag(draw.uniform(0.002, 0.008, 2))
            one += 0.02 * multivariate_normal(middle, covariance).pdf(pixels()).reshape(SIZE)
    return torch.from_numpy(out).float()


@pytest.fixture(scope="module")
def segments():
    return ppeps_wgm(maps(), 4, random_state=0)


def responsibilities(segments, i):
    """pi_j N(z | mu_j, Sigma_j) of every pixel by scipy, (pixels, J), and squared distances."""
    joint, squared = [], []
    for share, mean, covariance in zip(
        segments.shares[i].numpy(), segments.means[i].numpy(), segments.covariances[i].numpy(), strict=True
    ):
        joint.append(share * multivariate_normal(mean, covariance).pdf(pixels()))
        squared.append(cdist(pixels(), mean[None], "mahalanobis", VI=np.linalg.inv(covariance))[:, 0] ** 2)
    return np.stack(joint, 1), np.stack(squared, 1)


@pytest.mark.parametrize("distance", [0.5, 6.0, 1e6])
def test_labels_are_the_largest_responsibility_of_scipy_within_the_distance(segments, distance):
    labels = filled(segments, distance).labels
    for i in range(len(labels)):
        joint, squared = responsibilities(segments, i)
        best = joint.argmax(1)
        second = np.sort(joint, 1)[:, -2]
        own = squared[np.arange(len(best)), best]
        clear = (joint.max(1) > 1.0001 * second) & (abs(own / distance - 1) > 1e-6)
        expected = np.where(own <= distance, best, -1)
        assert clear.mean() > 0.9 or distance > 1e3  # far away, densities are zero and equal
        assert np.array_equal(labels[i].flatten().numpy()[clear], expected[clear])


def test_without_a_limit_every_pixel_is_labelled(segments):
    assert (filled(segments, 1e9).labels >= 0).all()


def test_only_pixels_within_the_distance_are_labelled_and_a_larger_one_takes_more(segments):
    small, large = filled(segments, 1.0).labels, filled(segments, 6.0).labels
    assert (small >= 0).sum() < (large >= 0).sum()
    taken = small >= 0
    assert torch.equal(small[taken], large[taken])
    for i, one in enumerate(large):
        nearest = responsibilities(segments, i)[1].min(1)
        assert (nearest[one.flatten().numpy() >= 0] <= 6 + 1e-9).all()


def test_near_its_mean_a_segment_keeps_what_it_had_and_its_holes_are_closed(segments):
    full = filled(segments, 6.0)
    closed = 0
    for i in range(len(full.labels)):
        squared = responsibilities(segments, i)[1].reshape(*SIZE, -1)
        for j in range(segments.n_segments):
            near = torch.from_numpy(squared[..., j] < 6 * (1 - 1e-9))
            before = (segments.labels[i] == j) & near
            after = full.labels[i] == j
            assert (after | ~before).all()
            closed += int((after & (segments.labels[i] == -1)).sum())
    assert closed > 0


def test_nothing_else_changes_and_a_map_without_effect_stays_empty():
    with_empty = torch.cat([maps(1), -torch.ones(1, *SIZE)])
    segments = ppeps_wgm(with_empty, 3, random_state=0)
    full = filled(segments)
    assert (full.labels[1] == -1).all()
    assert (full.labels[0] >= 0).any()
    for name in ("shares", "means", "covariances"):
        assert torch.equal(getattr(full, name), getattr(segments, name))
    assert full.n_segments == segments.n_segments


def test_a_segment_without_share_gets_no_pixel(segments):
    shares = segments.shares.clone()
    shares[:, 0] = 0
    assert not (filled(replace(segments, shares=shares), 1e9).labels == 0).any()


def test_mixtures_with_colours_are_filled_by_position_and_colour():
    colour = torch.zeros(1, 1, *SIZE)
    colour[..., 10:] = 1.0
    effect = torch.ones(1, *SIZE)
    segments = ppeps_wgm(effect, 2, random_state=0, features=colour, feature_weight=1.0)
    full = filled(segments, 1e9, features=colour)
    left, right = full.labels[0, :, :10].unique(), full.labels[0, :, 10:].unique()
    assert len(left) == len(right) == 1
    assert left != right


@pytest.mark.parametrize("distance", [0.0, -1.0, float("nan")])
def test_a_distance_that_is_none_is_refused(segments, distance):
    with pytest.raises(ValueError, match="distance must be above 0"):
        filled(segments, distance)


def test_features_that_the_mixtures_do_not_have_are_refused(segments):
    with pytest.raises(ValueError, match="0 features beside the position, got 1"):
        filled(segments, features=torch.zeros(3, 1, *SIZE))
    hybrid = ppeps_wgm(maps(1), 2, random_state=0, features=torch.rand(1, 2, *SIZE), feature_weight=1.0)
    with pytest.raises(ValueError, match="2 features beside the position, got 0"):
        filled(hybrid)
