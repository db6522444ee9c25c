import itertools
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
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


def enumerated(counts, alternative):
    """p by the book: every pattern of signs, ranks as fractions, differences as whole numbers.

    A zero is ranked and keeps half its rank on either side, whatever its sign.
    """
    sizes = sorted(map(abs, counts))
    ranks = [Fraction(2 * sizes.index(abs(c)) + 1 + sizes.count(abs(c)), 2) for c in counts]

    def above(signs):
        return sum(r if s > 0 else r / 2 if s == 0 else 0 for r, s in zip(ranks, signs, strict=True))

    middle, seen = sum(ranks) / 2, above(counts)
    free = [c != 0 for c in counts]
    sums = [
        above([s * f for s, f in zip(signs, free, strict=True)])
        for signs in itertools.product((-1, 1), repeat=len(counts))
    ]
    as_lopsided = {
        "greater": [w >= seen for w in sums],
        "less": [w <= seen for w in sums],
        "two-sided": [abs(w - middle) >= abs(seen - middle) for w in sums],
    }[alternative]
    return Fraction(sum(as_lopsided), len(sums))


ALTERNATIVES = st.sampled_from(["two-sided", "greater", "less"])


@given(
    st.integers(1, 12_000),
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=2, max_size=8),
    st.floats(0, 1),
    ALTERNATIVES,
)
@settings(max_examples=300, deadline=None)
def test_paired_test_of_accuracies_is_the_enumeration_on_counts(n, pairs, start, alternative):
    """Few distinct counts, so that ties and zeros abound; as shares of n they are rounded."""
    first = round(start * n)
    after, before = ([(first + count) / n for count in side] for side in zip(*pairs, strict=True))
    expected = enumerated([a - b for a, b in pairs], alternative)
    assert metrics.paired_test(after, before, alternative=alternative).p == float(expected)


@given(
    st.lists(st.lists(st.integers(0, 6), min_size=8, max_size=8), min_size=2, max_size=6),
    st.tuples(*[st.integers(6, 400)] * 4),
    ALTERNATIVES,
)
@settings(max_examples=200, deadline=None)
def test_paired_test_of_means_over_unequal_groups_is_the_enumeration_on_fractions(
    seeds, sizes, alternative
):
    def mean(counts):
        return metrics.average_group_accuracy(
            torch.tensor(counts, dtype=torch.float64) / torch.tensor(sizes, dtype=torch.float64)
        )

    def exact(counts):
        return sum(Fraction(c, n) for c, n in zip(counts, sizes, strict=True)) / 4

    found = metrics.paired_test(
        [mean(seed[:4]) for seed in seeds], [mean(seed[4:]) for seed in seeds], alternative=alternative
    )
    assert found.p == float(enumerated([exact(s[:4]) - exact(s[4:]) for s in seeds], alternative))


def test_equal_differences_of_counts_tie_whatever_their_floats():
    """.57 - .56 and .31 - .30 are one percentage point each, and differ as floats."""
    after = [0.57, 0.31, 0.42, 0.90, 0.02]
    before = [0.56, 0.30, 0.43, 0.91, 0.01]
    assert len({abs(a - b) for a, b in zip(after, before, strict=True)}) > 1
    assert metrics.paired_test(after, before).p == float(enumerated([1, 1, -1, -1, 1], "two-sided")) == 1.0
    # 0.1 + 0.2 is not 0.3, and yet no difference.
    found = metrics.paired_test([0.1 + 0.2, 0.5, 0.6], [0.3, 0.4, 0.4], alternative="greater")
    assert found.p == float(enumerated([0, 1, 2], "greater")) == 0.25


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=10), st.floats(1e-6, 1e6), ALTERNATIVES)
@settings(max_examples=100, deadline=None)
def test_paired_test_knows_no_unit(counts, unit, alternative):
    zeros = [0.0] * len(counts)
    in_units = metrics.paired_test([c * unit for c in counts], zeros, alternative=alternative).p
    assert in_units == metrics.paired_test(counts, zeros, alternative=alternative).p


@pytest.mark.parametrize("n", [16, 40, 200])
def test_paired_test_of_many_pairs_is_scipys_exact_one(n):
    rng = np.random.default_rng(n)
    differences = rng.normal(0.2, 1, n)
    for alternative in ("two-sided", "greater", "less"):
        peer = scipy.stats.wilcoxon(differences, alternative=alternative, method="exact").pvalue
        assert metrics.paired_test(differences, np.zeros(n), alternative=alternative).p == pytest.approx(
            peer
        )


@pytest.mark.parametrize(
    ("after", "before", "alternative", "message"),
    [
        ([1.0], [0.0], "two-sided", "two or more pairs; got 1 and 1"),
        ([1.0, 2.0], [0.0], "two-sided", "got 2 and 1"),
        ([1.0] * 501, [0.0] * 501, "two-sided", "up to 500 pairs, got 501"),
        ([1.0, 2.0], [0.0, 0.0], "both", "got 'both'"),
        ([1.0, float("inf")], [0.0, 0.0], "less", "not finite"),
    ],
)
def test_paired_test_refuses_what_it_cannot_test(after, before, alternative, message):
    with pytest.raises(ValueError, match=message):
        metrics.paired_test(after, before, alternative=alternative)


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


UNEVEN = st.lists(st.tuples(*[st.integers(0, 100)] * 3), min_size=3, max_size=9)


@given(UNEVEN)
def test_the_ends_of_a_share_of_a_gain_are_where_the_t_test_turns(rows):
    arm, method, untreated = (np.array(column) / 100 for column in zip(*rows, strict=True))
    if scipy.stats.ttest_rel(method, untreated).pvalue >= 0.049 or np.ptp(method - untreated) < 1e-9:
        return
    share, low, high = metrics.share_of_gain(arm, method, untreated)
    assert share == pytest.approx((arm - untreated).mean() / (method - untreated).mean())
    assert low <= share + 1e-9
    assert share <= high + 1e-9
    for end in (low, high):
        left = (arm - untreated) - end * (method - untreated)
        if np.ptp(left) > 1e-6:
            assert scipy.stats.ttest_1samp(left, 0).pvalue == pytest.approx(0.05, abs=1e-4)


def test_a_share_of_a_gain_by_hand():
    untreated, method = [0.1, 0.2, 0.3], [0.5, 0.7, 0.6]
    assert metrics.share_of_gain(untreated, method, untreated) == pytest.approx((0, 0, 0))
    assert metrics.share_of_gain(method, method, untreated) == pytest.approx((1, 1, 1))
    assert metrics.share_of_gain([0.3, 0.4, 0.5], method, untreated)[0] == pytest.approx(0.5)
    assert metrics.share_of_gain([0.0, 0.1, 0.2], method, untreated)[0] == pytest.approx(-0.25)


def test_the_interval_of_a_share_holds_the_true_one_as_often_as_it_says():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, (2000, 3, 7))
    noise += rng.normal(0, 0.1, (2000, 1, 7))  # seeds start higher or lower
    held = 0
    for untreated, arm, method in noise + np.array([0.3, 0.6, 0.9])[:, None]:
        _, low, high = metrics.share_of_gain(arm, method, untreated)
        held += low <= 0.5 <= high
    assert held / 2000 == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([0.1], [0.2], [0.0]), "two or more seeds of each arm; got 1, 1 and 1"),
        (([0.1, 0.2], [0.2, 0.3], [0.0]), "got 2, 2 and 1"),
        (([0.1, 0.2, 0.3], [0.5, 0.2, 0.3], [0.4, 0.4, 0.2]), "cannot be told from 0"),
    ],
)
def test_a_share_of_nothing_is_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        metrics.share_of_gain(*columns)


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
        lambda: metrics.verdict_scores(metrics.right_verdicts(truth), truth),
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
