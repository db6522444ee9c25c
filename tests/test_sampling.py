import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from lvlmva_lite.sampling import entropy, sample_alignment_set


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
