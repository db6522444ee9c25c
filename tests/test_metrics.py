import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from lvlmva_lite import metrics


def test_accuracy_is_sklearns():
    predicted, labels = torch.randint(0, 3, (50,)), torch.randint(0, 3, (50,))
    assert metrics.accuracy(predicted, labels) == pytest.approx(accuracy_score(labels, predicted))


def test_mu_align_by_hand():
    maps = torch.tensor([[[1.0, -3.0]], [[2.0, 2.0]]])
    masks = torch.tensor([[[False, True]], [[True, False]]])
    assert metrics.mu_align(maps, masks) == pytest.approx(1 - (0.75 + 0.5) / 2)


def test_mu_align_leaves_out_empty_maps():
    maps = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]]])
    masks = torch.tensor([[[True, True]], [[True, False]]])
    assert metrics.mu_align(maps, masks) == 0


@given(st.integers(0, 10_000), st.floats(0.1, 100))
def test_mu_align_is_a_share_and_complements(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    maps, masks = torch.randn(3, 4, 4, generator=generator), torch.rand(3, 4, 4, generator=generator) > 0.5
    value = metrics.mu_align(maps, masks)
    assert 0 <= value <= 1
    assert metrics.mu_align(maps, ~masks) == pytest.approx(1 - value)
    assert metrics.mu_align(maps * scale, masks) == pytest.approx(value)


def test_segment_truth_goes_by_the_effect_not_by_the_area():
    labels = torch.tensor([[[0, 0, 0, 1, 1]]])
    maps = torch.tensor([[[1.0, 1.0, 5.0, 3.0, 1.0]]])
    masks = torch.tensor([[[False, False, True, False, True]]])
    # Segment 0: 5 of 7 on the mask, by one pixel of three.  Segment 1: 1 of 4.  Segment 2 is empty.
    assert metrics.segment_truth(labels, 3, maps, masks).tolist() == [[True, False, False]]


def test_verdict_accuracy_is_sklearns_over_segments_that_exist():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(40, 3, generator=generator) > 0.7
    spurious = (truth ^ (torch.rand(40, 3, generator=generator) > 0.8)).float()
    labels = torch.randint(-1, 2, (40, 2, 2), generator=generator)  # segment 2 never exists
    present = torch.stack([(labels == j).flatten(1).any(1) for j in range(3)], 1)
    result = metrics.verdict_accuracy(spurious, truth, labels)
    expected = truth[present].numpy(), spurious[present].bool().numpy()
    assert result["accuracy"] == pytest.approx(accuracy_score(*expected))
    assert result["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(*expected))
    assert result["undecided"] == 0


def test_undecided_counts_as_wrong():
    labels = torch.tensor([[[0, 1]]])
    result = metrics.verdict_accuracy(
        torch.tensor([[float("nan"), 0.0]]), torch.tensor([[True, False]]), labels
    )
    assert result == {"accuracy": 0.5, "balanced_accuracy": 0.5, "undecided": 0.5}


def test_group_accuracy_by_hand_and_with_an_empty_group():
    predicted = torch.tensor([0, 0, 1, 1, 1])
    labels = torch.tensor([0, 1, 1, 1, 0])
    groups = torch.tensor([0, 2, 3, 3, 0])
    accuracies = metrics.group_accuracy(predicted, labels, groups, 4)
    assert accuracies[[0, 2, 3]].tolist() == [0.5, 0.0, 1.0]
    assert accuracies[1].isnan()
    assert metrics.worst_group_accuracy(accuracies) == 0.0
    assert metrics.average_group_accuracy(accuracies) == 0.5
    with pytest.raises(ValueError, match=r"0 \.\. 2"):
        metrics.group_accuracy(predicted, labels, groups, 3)


def test_paired_test_against_enumeration():
    """All 2^n sign assignments, counted here by hand."""
    differences = [0.3, -0.1, 0.4, 0.15, 0.25, 0.0]
    found = metrics.paired_test(differences, [0.0] * 6, alternative="greater")
    ranks = scipy.stats.rankdata(np.abs(differences))
    observed = sum(r if d > 0 else r / 2 if d == 0 else 0 for r, d in zip(ranks, differences, strict=True))
    # A zero keeps half its rank on either side, whatever its sign.
    fixed = ranks[-1] / 2
    sums = [
        fixed + sum(r for r, up in zip(ranks[:-1], signs, strict=True) if up)
        for signs in itertools.product((False, True), repeat=5)
    ]
    assert found.p == pytest.approx(np.mean([s >= observed - 1e-9 for s in sums]))
    assert (found.n, found.mean) == (6, pytest.approx(np.mean(differences)))


def test_seven_pairs_cannot_give_less_than_their_smallest_p():
    after = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    for alternative, smallest in (("two-sided", 2 / 128), ("greater", 1 / 128)):
        found = metrics.paired_test(after, [0.0] * 7, alternative=alternative)
        assert found.p == pytest.approx(smallest) == found.smallest_p
    assert metrics.paired_test(after, after).p == 1.0
    with pytest.raises(ValueError, match="not finite"):
        metrics.paired_test([1.0, float("nan")], [0.0, 0.0])


def test_mean_interval_by_the_t_table():
    mean, low, high = metrics.mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert high - mean == pytest.approx(4.302653 / 3**0.5, rel=1e-6) == pytest.approx(mean - low)


def test_neighbour_purity_of_pairs_and_of_chance():
    # Pairs at one place: the nearest neighbour of each is its twin.
    places = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    assert metrics.neighbour_purity(places, torch.tensor([0, 0, 1, 1]), 1) == 1.0
    assert metrics.neighbour_purity(places, torch.tensor([0, 1, 0, 1]), 1) == 0.0
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2000, 3, generator=generator)
    labels = torch.randint(4, (2000,), generator=generator)
    assert metrics.neighbour_purity(noise, labels) == pytest.approx(0.25, abs=0.02)


def memory_of(function):
    """Largest number of bytes that PyTorch's CPU allocator held at once for ``function``, by the profiler."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        function()
    held = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


@pytest.mark.parametrize("n_segments", [1, 6, 50])
def test_memory_for_verdicts_does_not_grow_with_segments_times_pixels(n_segments):
    n, side = 20, 96
    generator = torch.Generator().manual_seed(n_segments)
    labels = torch.randint(-1, n_segments, (n, side, side), generator=generator)
    maps = torch.randn(n, side, side, generator=generator)
    masks = torch.rand(n, side, side, generator=generator) < 0.5
    truth = metrics.segment_truth(labels, n_segments, maps, masks)
    pixels = 8 * labels.numel()
    for work in (
        lambda: metrics.segment_truth(labels, n_segments, maps, masks),
        lambda: metrics.verdict_accuracy(truth.float(), truth, labels),
    ):
        assert memory_of(work) < 8 * pixels


def test_segment_sums_are_those_of_a_loop():
    from lvlmva_lite.segmentation import segment_sums

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, 3, (4, 5, 6), generator=generator)
    values = torch.rand(4, 5, 6, generator=generator)
    areas, sums = segment_sums(labels, 4), segment_sums(labels, 4, values)
    for i in range(4):
        for j in range(4):
            there = labels[i] == j
            assert areas[i, j] == int(there.sum())
            assert sums[i, j].item() == pytest.approx(values[i][there].double().sum().item())
