import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, recall_score

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
    assert metrics.segment_truth(labels, 3, maps, masks).tolist() == [[1, 3, -1]]
    # Segment 1 holds 3 of 4 on the core, or on neither.
    core = torch.tensor([[[True, True, True, True, False]]])
    assert metrics.segment_truth(labels, 3, maps, masks, core).tolist() == [[1, 0, -1]]
    assert metrics.segment_truth(labels, 3, maps, masks, ~core).tolist() == [[1, 2, -1]]


@given(st.integers(0, 10_000))
def test_the_truth_is_counted_pixel_by_pixel(seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 4, (3, 4, 4), generator=generator)
    maps = torch.randint(-2, 5, (3, 4, 4), generator=generator).float()
    spurious, core = (torch.rand(3, 4, 4, generator=generator) > 0.5 for _ in range(2))
    truth = metrics.segment_truth(labels, 5, maps, spurious, core)
    for n, j in itertools.product(range(3), range(5)):
        pixels = [
            (max(maps[n, y, x].item(), 0), bool(spurious[n, y, x]), bool(core[n, y, x]))
            for y, x in itertools.product(range(4), range(4))
            if labels[n, y, x] == j
        ]
        total = sum(effect for effect, _, _ in pixels)
        held = sum(effect for effect, is_spurious, _ in pixels if is_spurious)
        shown = sum(effect for effect, is_spurious, is_core in pixels if is_core and not is_spurious)
        if 2 * held == total or 2 * shown == total:
            continue  # a tie may round either way
        expected = -1 if not pixels else 1 if 2 * held > total else 0 if 2 * shown > total else 2
        assert truth[n, j] == expected


def test_the_truth_takes_memory_linear_in_the_pixels():
    """A mask for each segment would be 512 times as large as a map."""
    largest = 0

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            nonlocal largest
            result = super().__torch_function__(function, types, args, kwargs)
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    labels = torch.randint(-1, 512, (2, 40, 40)).as_subclass(Watched)
    maps, masks = torch.rand(2, 40, 40), torch.rand(2, 40, 40) > 0.5
    metrics.segment_truth(labels, 512, maps.as_subclass(Watched), masks.as_subclass(Watched))
    assert largest <= 2 * 40 * 40


codes = st.lists(st.integers(0, 3), min_size=3, max_size=3)


@given(st.lists(codes, min_size=4, max_size=4), st.lists(codes, min_size=4, max_size=4))
def test_verdict_scores_are_sklearns(kinds, truth):
    kinds, truth = torch.tensor(kinds), torch.tensor(truth)
    truth[0, 0] = -1  # an empty segment does not count
    scores = metrics.verdict_scores(kinds, truth)
    called, spurious = (np.ravel(part.numpy() == 1)[1:] for part in (kinds, truth))
    decided = np.ravel(kinds.numpy() != 3)[1:]
    assert scores["undecided"] == pytest.approx(1 - decided.mean())
    assert scores["base_rate"] == pytest.approx(accuracy_score(spurious, np.zeros(11, bool)))
    assert scores["accuracy"] == pytest.approx(((called == spurious) & decided).mean())
    for name, positive in (("sensitivity", True), ("specificity", False)):
        if (spurious[decided] == positive).any():
            expected = recall_score(spurious[decided], called[decided], pos_label=positive)
            assert scores[name] == pytest.approx(expected)
        else:
            assert scores[name] is None
    if None not in (scores["sensitivity"], scores["specificity"]):
        expected = balanced_accuracy_score(spurious[decided], called[decided])
        assert scores["balanced_accuracy"] == pytest.approx(expected)
    else:
        assert scores["balanced_accuracy"] is None


def test_what_is_undecided_is_counted_beside_and_not_among():
    scores = metrics.verdict_scores(torch.tensor([[3, 0, 1, 1, 2]]), torch.tensor([[1, 0, 1, 2, 2]]))
    assert scores == {
        "sensitivity": 1.0, "specificity": pytest.approx(2 / 3), "balanced_accuracy": pytest.approx(5 / 6),
        "accuracy": 0.6, "undecided": 0.2, "base_rate": 0.6,
    }  # fmt: skip


def test_confusion_of_kinds_is_sklearns():
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randint(0, 4, (50, 6), generator=generator)
    truth = torch.randint(-1, 3, (50, 6), generator=generator)
    table = metrics.kind_confusion(kinds, truth)
    there = truth != -1
    expected = confusion_matrix(truth[there], kinds[there], labels=range(4))
    assert list(table) == ["core", "spurious", "neither"]
    assert [list(row.values()) for row in table.values()] == expected[:3].tolist()
    assert list(table["core"]) == ["relevant", "spurious", "background", "undecided"]


def test_a_critic_without_fault_scores_one():
    truth = torch.tensor([[0, 1, 2, -1], [3, 3, 1, -1]])
    kinds = metrics.right_verdicts(truth)
    assert kinds.tolist() == [[0, 1, 2, 2], [0, 0, 1, 2]]
    scores = metrics.verdict_scores(kinds, truth)
    assert scores["sensitivity"] == scores["specificity"] == scores["accuracy"] == 1


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
