import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from lvlmva_lite import mixture
from lvlmva_lite.segment_choice import choose_n_segments
from lvlmva_lite.segmentation import positive_effect, ppeps_wgm


def pixel_centres(height, width):
    rows, columns = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)


def responsibilities(segments, i, height, width):
    """Of every pixel for every segment of map i, and the mixture's density, by scipy."""
    points = pixel_centres(height, width)
    joint = np.stack(
        [
            share * multivariate_normal(mean, covariance).pdf(points).reshape(-1)
            for share, mean, covariance in zip(
                segments.shares[i].numpy(),
                segments.means[i].numpy(),
                segments.covariances[i].numpy(),
                strict=True,
            )
        ],
        1,
    )
    density = joint.sum(1)
    return joint / np.maximum(density, 1e-300)[:, None], density


@pytest.fixture(scope="module")
def maps():
    """Twelve maps of smooth blobs with negative parts."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(12, 1, 20, 24, generator=generator)
    return torch.nn.functional.avg_pool2d(noise, 5, 1, 2)[:, 0]


map_stacks = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    elements=st.floats(-5, 5, allow_nan=False).map(lambda value: round(value, 3)),
)


@settings(deadline=None, max_examples=60)
@given(map_stacks, st.integers(1, 5))
def test_any_map_gives_consistent_segments(stack, n_segments):
    attributions = torch.from_numpy(stack)
    segments = ppeps_wgm(attributions, n_segments)
    n, height, width = attributions.shape
    positive = attributions > 0
    assert segments.labels.shape == (n, height, width)
    assert torch.equal(segments.labels >= 0, positive)
    assert segments.labels.max() < n_segments
    some = positive.flatten(1).any(1)
    torch.testing.assert_close(segments.shares.sum(1), some.double())
    for field in (segments.shares, segments.means, segments.covariances, segments.log_likelihood):
        assert field.isfinite().all()
    assert ((segments.means >= 0) & (segments.means <= 1)).all()
    # No segment is narrower than a pixel.
    smallest = torch.linalg.eigvalsh(segments.covariances).amin()
    assert smallest >= min(height**-2.0, width**-2.0) / 12 * (1 - 1e-6)
    # No more segments than positive pixels hold effect.
    assert ((segments.shares > 0).sum(1) <= positive.flatten(1).sum(1).clamp_min(0)).all()


@settings(deadline=None, max_examples=40)
@given(map_stacks, st.sampled_from([1e-30, 1e-3, 0.5, 2.0, 1e4, 1e30]))
def test_scale_of_a_map_changes_nothing(stack, scale):
    attributions = torch.from_numpy(stack)
    one, other = ppeps_wgm(attributions, 3), ppeps_wgm(attributions * scale, 3)
    torch.testing.assert_close(one.shares, other.shares, rtol=0, atol=1e-6)
    torch.testing.assert_close(one.means, other.means, rtol=0, atol=1e-6)


def test_mixture_weights_are_the_effect_shares(maps):
    segments = ppeps_wgm(maps, 5)
    mass = positive_effect(maps).flatten(1).numpy()
    for i in range(len(maps)):
        responsible, density = responsibilities(segments, i, 20, 24)
        np.testing.assert_allclose(segments.shares[i], mass[i] @ responsible, atol=1e-4)
        seen = mass[i] > 0
        expected = 20 * 24 * (mass[i][seen] * np.log(density[seen])).sum()
        np.testing.assert_allclose(segments.log_likelihood[i], expected, rtol=1e-9)
        np.testing.assert_array_equal(segments.labels[i].flatten()[seen], responsible[seen].argmax(1))
        undecided = scipy.stats.entropy(responsible[seen], axis=1)
        np.testing.assert_allclose(segments.entropy[i], mass[i][seen] @ undecided, rtol=1e-6)


def test_weight_of_k_counts_as_k_pixels():
    # scikit-learn has no sample weights: give it every pixel as often as its weight says.
    # Where it starts from our solution it must find nothing left to do.
    generator = torch.Generator().manual_seed(1)
    side = 16
    weights = torch.randint(0, 5, (1, side, side), generator=generator).double()
    weights[:, 5:9] = 0
    segments = ppeps_wgm(weights, 3, tol=1e-9)
    points = np.repeat(pixel_centres(side, side), weights.flatten().long().numpy(), axis=0)
    mixture = GaussianMixture(
        3,
        weights_init=segments.shares[0],
        means_init=segments.means[0],
        precisions_init=np.linalg.inv(segments.covariances[0]),
        reg_covar=side**-2 / 12,
        max_iter=1,
    )
    with pytest.warns(UserWarning, match="did not converge"):
        mixture.fit(points)
    np.testing.assert_allclose(mixture.weights_, segments.shares[0], atol=1e-5)
    np.testing.assert_allclose(mixture.means_, segments.means[0], atol=1e-5)
    np.testing.assert_allclose(mixture.covariances_, segments.covariances[0], atol=1e-5)
    np.testing.assert_allclose(mixture.lower_bound_, segments.log_likelihood[0] / side**2, rtol=1e-6)


def test_likelihood_is_near_that_of_sklearns_best_start(maps):
    # Same maps as integer weights; scikit-learn gets ten starts, we have one.
    ours, theirs = [], []
    for one in maps[:6]:
        weights = (one.clamp_min(0) / one.max() * 8).round()
        points = np.repeat(pixel_centres(20, 24), weights.flatten().long().numpy(), axis=0)
        best = GaussianMixture(4, n_init=10, reg_covar=1 / 12 / 22**2, random_state=0).fit(points)
        theirs.append(best.score(points))
        ours.append(float(ppeps_wgm(weights[None], 4).log_likelihood) / (20 * 24))
    assert np.mean(ours) > np.mean(theirs) - 0.05


@pytest.mark.parametrize("n_segments", [2, 5])
def test_extrapolated_steps_end_where_plain_steps_of_scipy_stand_still(maps, n_segments):
    segments = ppeps_wgm(maps, n_segments)
    points = pixel_centres(20, 24)
    floor = np.diag([20.0**-2, 24.0**-2]) / 12
    for i, mass in enumerate(positive_effect(maps).flatten(1).numpy()):
        held = responsibilities(segments, i, 20, 24)[0] * mass[:, None]
        shares = held.sum(0)
        means = held.T @ points / shares[:, None]
        np.testing.assert_allclose(shares, segments.shares[i], atol=2e-4)
        np.testing.assert_allclose(means, segments.means[i], atol=2e-4)
        for j in range(n_segments):
            covariance = np.cov(points.T, aweights=held[:, j], bias=True) + floor
            np.testing.assert_allclose(covariance, segments.covariances[i, j], atol=2e-4)


def test_a_window_smaller_than_the_maps_changes_nothing(maps, monkeypatch):
    expected = ppeps_wgm(maps, 3)
    monkeypatch.setattr(mixture, "WINDOW", 2000)  # two maps at a time
    found = ppeps_wgm(maps, 3)
    assert torch.equal(found.labels, expected.labels)
    torch.testing.assert_close(found.shares, expected.shares)


def test_zero_and_negative_pixels_count_as_absent(maps):
    one, other = ppeps_wgm(maps, 4), ppeps_wgm(torch.where(maps > 0, maps, -7.0), 4)
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.shares, other.shares)


def test_one_segment_has_the_moments_of_the_map(maps):
    segments = ppeps_wgm(maps, 1)
    points = torch.from_numpy(pixel_centres(20, 24))
    for i, mass in enumerate(positive_effect(maps).flatten(1)):
        mean = mass @ points
        centred = points - mean
        covariance = (centred * mass[:, None]).T @ centred + torch.diag(
            torch.tensor([20.0, 24]) ** -2.0
        ) / 12
        torch.testing.assert_close(segments.means[i, 0], mean)
        torch.testing.assert_close(segments.covariances[i, 0], covariance, check_dtype=False)


def test_two_separate_blobs_are_two_segments():
    blobs = torch.zeros(1, 28, 28)
    blobs[0, :4, :4] = 3.0
    blobs[0, 15:20, 15:25] = 1.0
    segments = ppeps_wgm(blobs, 2)
    torch.testing.assert_close(segments.shares[0], torch.tensor([50.0, 48.0], dtype=torch.float64) / 98)
    assert (segments.labels[0, :4, :4] == 1).all()
    assert (segments.labels[0, 15:20, 15:25] == 0).all()


def test_a_map_does_not_depend_on_its_neighbours(maps):
    together = ppeps_wgm(maps, 3, batch_size=5)
    for i in range(len(maps)):
        alone = ppeps_wgm(maps[i : i + 1], 3)
        torch.testing.assert_close(together.shares[i], alone.shares[0])
        assert torch.equal(together.labels[i], alone.labels[0])


def test_map_without_positive_effect_has_no_segment():
    segments = ppeps_wgm(torch.tensor([[[-1.0, 0.0]], [[1.0, 0.0]]]), 2)
    assert (segments.labels[0] == -1).all()
    assert (segments.shares[0] == 0).all()
    assert segments.log_likelihood[0] == 0
    assert segments.labels[1].tolist() == [[0, -1]]
    assert segments.shares[1].tolist() == [1, 0]


def test_arrays_and_tensors_that_need_gradients_are_taken_too(maps):
    expected = ppeps_wgm(maps, 2)
    for same in (maps.numpy(), maps.clone().requires_grad_()):
        assert torch.equal(ppeps_wgm(same, 2).labels, expected.labels)


def test_one_pixel_image():
    segments = ppeps_wgm(torch.ones(1, 1, 1), 3)
    assert segments.labels.tolist() == [[[0]]]
    assert segments.means[0, 0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_map_that_is_not_finite_is_named(bad):
    maps = torch.ones(4, 3, 3)
    maps[2, 1, 1] = bad
    with pytest.raises(ValueError, match="image 2 holds NaN or infinite values"):
        ppeps_wgm(maps, 2)


@pytest.mark.parametrize(
    ("maps", "n_segments", "message"),
    [(torch.ones(1, 3, 3), 0, "got 0"), (torch.ones(3, 3), 1, r"\(3, 3\)")],
)
def test_bad_arguments_are_named(maps, n_segments, message):
    with pytest.raises(ValueError, match=message):
        ppeps_wgm(maps, n_segments)


def test_subset_keeps_maps_together(maps):
    segments = ppeps_wgm(maps, 3)
    some = segments.subset(torch.tensor([4, 1]))
    assert len(some) == 2
    assert torch.equal(some.labels[1], segments.labels[1])
    assert torch.equal(some.shares[0], segments.shares[4])


@pytest.fixture(scope="module")
def crossing():
    """A bright bar that crosses a dim round blob: one centre, two grey values; (maps, features, on_bar)."""
    rows, columns = torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij")
    on_bar = (columns >= 12) & (columns < 16) & (rows >= 2) & (rows < 26)
    blob = ((rows - 13.5) ** 2 + (columns - 13.5) ** 2 < 81) & ~on_bar
    noise = 0.02 * torch.randn(28, 28, generator=torch.Generator().manual_seed(0))
    image = 0.9 * on_bar + 0.3 * blob + noise
    return (on_bar | blob).double()[None], image[None, None], on_bar


def agreement(labels, truth):
    """Share of the pixels of two segments that are where they belong, whichever is called which."""
    seen = labels >= 0
    right = ((labels == 1) == truth)[seen].double().mean().item()
    return max(right, 1 - right)


def test_features_part_what_overlaps_in_space(crossing):
    maps, features, on_bar = crossing
    assert agreement(ppeps_wgm(maps, 2).labels[0], on_bar) < 0.9
    segments = ppeps_wgm(maps, 2, features=features)
    assert agreement(segments.labels[0], on_bar) == 1
    # Mean and variance are those of the bar's pixels, in the feature's unit; the floor widens the variance.
    bar = int(segments.labels[0][5, 13])
    values = features[0, 0][on_bar]
    torch.testing.assert_close(segments.means[0, bar, 2], values.double().mean(), rtol=1e-4, atol=0)
    floor = 1 / (12 * 28 * 28)
    expected = values.double().var(correction=0) + floor
    torch.testing.assert_close(segments.covariances[0, bar, 2, 2], expected, rtol=1e-2, atol=0)


def test_a_feature_of_hardly_any_weight_changes_nothing(maps):
    features = torch.rand(len(maps), 2, 20, 24, generator=torch.Generator().manual_seed(2))
    plain = ppeps_wgm(maps, 4)
    # So small that even ties of the start, which pixels of a grid are full of, fall alike.
    hybrid = ppeps_wgm(maps, 4, features=features, feature_weight=1e-12)
    torch.testing.assert_close(hybrid.shares, plain.shares, rtol=0, atol=1e-6)
    torch.testing.assert_close(hybrid.means[..., :2], plain.means, rtol=0, atol=1e-6)
    assert (hybrid.labels == plain.labels).double().mean() > 0.999
    none = ppeps_wgm(maps, 4, features=features[:, :0])
    assert torch.equal(none.labels, plain.labels)
    # And one of some weight does change the segments.
    assert (ppeps_wgm(maps, 4, features=features).labels != plain.labels).double().mean() > 0.05


def test_units_of_a_feature_go_with_its_weight(maps):
    features = torch.rand(len(maps), 1, 20, 24, generator=torch.Generator().manual_seed(2))
    # Followed to the end, since extrapolated steps carry rounding on: where they stop is sure to tol, no closer.
    one = ppeps_wgm(maps, 3, features=features, feature_weight=2.0, tol=1e-10)
    other = ppeps_wgm(maps, 3, features=255 * features + 7, feature_weight=2.0 / 255, tol=1e-10)
    assert torch.equal(one.labels, other.labels)
    torch.testing.assert_close(255 * one.means[..., 2] + 7, other.means[..., 2])
    spreads = (255**2 * one.covariances[..., 2, 2], other.covariances[..., 2, 2])
    torch.testing.assert_close(*spreads, rtol=1e-5, atol=0)
    # The density of a feature is per unit.
    torch.testing.assert_close(one.log_likelihood - 480 * np.log(255), other.log_likelihood)


@pytest.mark.parametrize("n_features", [1, 3])
def test_in_any_dimension_weight_of_k_counts_as_k_pixels(n_features):
    generator = torch.Generator().manual_seed(3)
    side = 14
    weights = torch.randint(0, 4, (1, side, side), generator=generator).double()
    features = torch.rand(1, n_features, side, side, generator=generator).double()
    features[:, :, :, 7:] += 0.5
    segments = ppeps_wgm(weights, 3, features=features, tol=1e-9)
    points = np.concatenate([pixel_centres(side, side), features[0].flatten(1).T.numpy()], 1)
    points = np.repeat(points, weights.flatten().long().numpy(), axis=0)
    mixture = GaussianMixture(
        3,
        weights_init=segments.shares[0],
        means_init=segments.means[0],
        precisions_init=np.linalg.inv(segments.covariances[0]),
        reg_covar=side**-2 / 12,
        max_iter=1,
    )
    with pytest.warns(UserWarning, match="did not converge"):
        mixture.fit(points)
    np.testing.assert_allclose(mixture.weights_, segments.shares[0], atol=1e-5)
    np.testing.assert_allclose(mixture.means_, segments.means[0], atol=1e-5)
    np.testing.assert_allclose(mixture.covariances_, segments.covariances[0], atol=1e-5)
    np.testing.assert_allclose(mixture.lower_bound_, segments.log_likelihood[0] / side**2, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": torch.ones(2, 3, 3)}, r"\(2, 3, 3\)"),
        (
            {"features": torch.ones(2, 1, 3, 4)},
            r"\(2, F, 3, 3\) like the attributions, got .*\(2, 1, 3, 4\)",
        ),
        ({"features": torch.full((2, 1, 3, 3), torch.nan)}, "features of image 0 hold NaN"),
        ({"features": torch.ones(2, 1, 3, 3), "feature_weight": 0}, "above 0, got 0"),
    ],
)
def test_bad_features_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ppeps_wgm(torch.ones(2, 3, 3), 2, **settings)


def draws_from(means, n_draws=20_000, side=24, sd=0.05, seed=0):
    """A map that counts draws from a mixture of round Gaussians."""
    rng = np.random.default_rng(seed)
    means = np.array(means)
    points = means[rng.integers(len(means), size=n_draws)] + sd * rng.standard_normal((n_draws, 2))
    counts, _, _ = np.histogram2d(*points.T, bins=side, range=[[0, 1], [0, 1]])
    return torch.from_numpy(counts)


@pytest.mark.parametrize("criterion", ["bic", "icl"])
def test_the_true_number_of_segments_is_found(criterion):
    apart = [(0.15, 0.2), (0.2, 0.8), (0.8, 0.5), (0.5, 0.15), (0.85, 0.9)]
    maps = torch.stack([draws_from(apart[:n]) for n in (1, 3, 5)])
    found = choose_n_segments(maps, [6, 1, 2, 3, 4, 5, 1], criterion=criterion)
    assert found.candidates == (1, 2, 3, 4, 5, 6)
    assert found.n_segments.tolist() == [1, 3, 5]
    assert ((found.segments.shares > 0).sum(1) == found.n_segments).all()


def test_the_criteria_are_what_scikit_learn_computes():
    # At equal weights n_eff is the number of pixels, and scikit-learn has a BIC to compare with.
    maps = torch.zeros(1, 20, 20)
    maps[0, 2:9, 3:8], maps[0, 12:18, 10:19] = 1, 1
    points = pixel_centres(20, 20)[maps.flatten().bool().numpy()]
    for criterion in ("bic", "icl"):
        found = choose_n_segments(maps, [1, 2, 3], criterion=criterion, tol=1e-9)
        for k, n_segments in enumerate(found.candidates):
            fitted = ppeps_wgm(maps, n_segments, tol=1e-9)
            mixture = GaussianMixture(
                n_segments,
                weights_init=fitted.shares[0],
                means_init=fitted.means[0],
                precisions_init=np.linalg.inv(fitted.covariances[0]),
                reg_covar=20**-2 / 12,
            ).fit(points)
            expected = mixture.bic(points)
            if criterion == "icl":
                expected += 2 * scipy.stats.entropy(mixture.predict_proba(points), axis=1).sum()
            np.testing.assert_allclose(found.scores[0, k], expected, rtol=1e-4)


def test_features_have_parameters_too(crossing):
    maps, features, _ = crossing
    n_eff = maps.sum()
    plain = choose_n_segments(maps, [2])
    hybrid = choose_n_segments(maps, [2], features=features)
    fitted = ppeps_wgm(maps, 2, features=features)
    expected = -2 * n_eff * fitted.log_likelihood / 28**2 + (2 * 10 - 1) * n_eff.log()
    torch.testing.assert_close(hybrid.scores[:, 0], expected)
    expected = -2 * n_eff * ppeps_wgm(maps, 2).log_likelihood / 28**2 + (2 * 6 - 1) * n_eff.log()
    torch.testing.assert_close(plain.scores[:, 0], expected)


def test_each_map_gets_the_segments_of_its_own_number(maps):
    found = choose_n_segments(maps, range(1, 6), random_state=3)
    assert len(found.n_segments.unique()) > 1
    assert torch.equal(found.n_segments, torch.tensor(found.candidates)[found.scores.argmin(1)])
    assert found.segments.shares.shape == (len(maps), 5)
    for i, n_segments in enumerate(found.n_segments.tolist()):
        alone = ppeps_wgm(maps[i : i + 1], n_segments, random_state=3)
        assert torch.equal(found.segments.labels[i], alone.labels[0])
        torch.testing.assert_close(found.segments.shares[i, :n_segments], alone.shares[0])
        assert (found.segments.shares[i, n_segments:] == 0).all()
        torch.testing.assert_close(found.segments.log_likelihood[i], alone.log_likelihood[0])
        torch.testing.assert_close(found.segments.means[i, :n_segments], alone.means[0])
    # The chosen do not depend on the order or on which other maps there are.
    some = choose_n_segments(maps[[4]], [5, 4, 3, 2, 1], random_state=3)
    assert some.n_segments[0] == found.n_segments[4]


def test_maps_that_say_nothing_get_the_fewest_segments():
    maps = torch.zeros(2, 5, 5)
    maps[1, 2, 2] = 1
    for criterion in ("bic", "icl"):
        found = choose_n_segments(maps, [3, 2], criterion=criterion)
        assert found.n_segments.tolist() == [2, 2]
        assert found.scores.isfinite().all()


@pytest.mark.parametrize(
    ("candidates", "criterion", "message"),
    [([], "bic", "one or more"), ([0, 1], "bic", r"\(0, 1\)"), ([1], "aic", "bic, icl; got 'aic'")],
)
def test_bad_candidates_and_criteria_are_named(candidates, criterion, message):
    with pytest.raises(ValueError, match=message):
        choose_n_segments(torch.ones(1, 3, 3), candidates, criterion=criterion)
