import pytest
import scipy.stats
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st

from lvlmva_lite.sampling import enrichment_curve, entropy, sample_alignment_set


def test_entropy_equals_scipys():
    probabilities = torch.randn(50, 10, dtype=torch.float64).softmax(1)
    expected = scipy.stats.entropy(probabilities.numpy(), axis=1)
    torch.testing.assert_close(entropy(probabilities), torch.from_numpy(expected))


def test_entropy_of_certainty_and_of_ignorance():
    torch.testing.assert_close(entropy(torch.tensor([[1.0, 0, 0]])), torch.zeros(1))
    torch.testing.assert_close(entropy(torch.full((1, 4), 0.25)), torch.tensor([4.0]).log())


@given(st.integers(0, 1000), st.integers(1, 40), st.booleans(), st.sampled_from(["low", "random", "high"]))
def test_sample_is_a_set_of_the_size_asked_for(seed, n, balanced, strategy):
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(40, 4, generator=generator).softmax(1)
    labels = torch.randint(0, 4, (40,), generator=generator)
    picked = sample_alignment_set(probabilities, labels, n, strategy=strategy, balanced=balanced)
    assert len(picked) == n == len(picked.unique())
    if balanced:
        # No class may have fewer than another unless it is used up.
        counts = torch.bincount(labels[picked], minlength=4)
        available = torch.bincount(labels, minlength=4)
        assert all(counts[k] >= counts.max() - 1 or counts[k] == available[k] for k in range(4))
    if strategy == "low" and not balanced:
        rest = torch.ones(40, dtype=torch.bool).scatter(0, picked, False)
        values = entropy(probabilities.double())
        assert n == 40 or values[picked].max() <= values[rest].min()


def test_high_is_low_reversed():
    probabilities = torch.randn(30, 5).softmax(1)
    labels = torch.zeros(30, dtype=torch.int64)
    low = sample_alignment_set(probabilities, labels, 30, strategy="low")
    high = sample_alignment_set(probabilities, labels, 30, strategy="high")
    assert torch.equal(low, high.flip(0))


def test_random_depends_on_the_seed_alone():
    probabilities, labels = torch.randn(30, 5).softmax(1), torch.zeros(30, dtype=torch.int64)
    draws = [
        sample_alignment_set(probabilities, labels, 10, strategy="random", random_state=s)
        for s in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(
    ("n", "strategy", "message"), [(0, "low", "got 0"), (31, "low", "got 31"), (5, "mid", "'mid'")]
)
def test_bad_values_are_named(n, strategy, message):
    with pytest.raises(ValueError, match=message):
        sample_alignment_set(torch.rand(30, 5), torch.zeros(30, dtype=torch.int64), n, strategy=strategy)


def test_enrichment_by_hand():
    curve = enrichment_curve(torch.tensor([0.3, 0.1, 0.2, 0.9]), torch.tensor([1.0, 5.0, 0.0, 2.0]))
    torch.testing.assert_close(curve, torch.tensor([0, 5, 5, 6, 8], dtype=torch.float64) / 8)


@pytest.mark.parametrize(("separation", "p"), [(0.0, 0.5), (1.0, 0.2), (-2.0, 0.7)])
def test_enrichment_of_two_gaussians(separation, p):
    """Scores N(-d, 1) with the feature and N(0, 1) without: the curve is (P(score < t), Phi(t + d))."""
    generator = torch.Generator().manual_seed(0)
    n = 100_000
    spurious = torch.rand(n, generator=generator) < p
    scores = torch.randn(n, generator=generator, dtype=torch.float64) - separation * spurious
    curve = enrichment_curve(scores, spurious)
    for t in (-2.0, -0.5, 0.0, 1.5):
        with_it, without = scipy.stats.norm.cdf(t + separation), scipy.stats.norm.cdf(t)
        fraction = p * with_it + (1 - p) * without
        assert curve[round(fraction * n)].item() == pytest.approx(with_it, abs=0.02)


@given(st.integers(0, 10_000), st.integers(2, 60))
def test_area_under_the_enrichment_curve_is_the_roc_area_rescaled(seed, n):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randperm(n, generator=generator).double()
    spurious = torch.rand(n, generator=generator) < 0.4
    spurious[:2] = torch.tensor([True, False])
    area = torch.trapezoid(enrichment_curve(scores, spurious), dx=1 / n).item()
    auc = sklearn.metrics.roc_auc_score(spurious.numpy(), -scores.numpy())
    p = spurious.double().mean().item()
    assert area == pytest.approx((1 - p) * auc + p / 2)


def test_enrichment_agrees_with_sampling():
    probabilities, spurious = torch.randn(300, 5).softmax(1), torch.rand(300) < 0.3
    labels = torch.zeros(300, dtype=torch.int64)
    picked = sample_alignment_set(probabilities, labels, 80, strategy="low", balanced=False)
    curve = enrichment_curve(entropy(probabilities.double()), spurious)
    assert curve[80].item() == pytest.approx((spurious[picked].sum() / spurious.sum()).item())
    assert curve[0] == 0
    assert curve[-1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        ([1.0, 2.0], "3 scores, 2 amounts"),
        ([1.0, -2.0, 3.0], "least -2"),
        ([0.0, 0.0, 0.0], "all zero"),
        ([1.0, float("nan"), 0.0], "nan"),
        ([1.0, float("inf"), 0.0], "inf"),
    ],
)
def test_bad_amounts_are_named(amounts, message):
    with pytest.raises(ValueError, match=message):
        enrichment_curve(torch.rand(3), torch.tensor(amounts))
