from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lvlmva_lite import metrics
from lvlmva_lite.critic import Case, Critique, TextJudge, Verdict
from lvlmva_lite.critic.adjudication import adjudicated, certainty, queue, vote_certainty
from lvlmva_lite.critic.distilled import DistilledCritic, segment_features
from lvlmva_lite.critic.types import KINDS, RELEVANT, SPURIOUS, UNDECIDED
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.experiments import human_arms
from lvlmva_lite.experiments.human_arms import Judged, group_rows, quality_rows, seen_places


@pytest.fixture(scope="module")
def judge():
    return TextJudge()


def test_chances_are_read_from_the_prose_and_not_from_the_verdicts(judge):
    steps = "2. The sticker is dismissed. The lesion is the class.\n3. A covers the sticker. B covers the lesion.\n6. "
    told, other = (
        judge.chances(Critique("x", "c", steps + f"Segment A is {kind}.\nSegment B is {kind}."), 3)
        for kind in ("relevant", "spurious")
    )
    assert told == other
    assert told[2] == {}
    for chances in told[:2]:
        assert sum(chances.values()) == pytest.approx(1)
        assert set(chances) <= set(KINDS)
    assert told[0]["spurious"] > told[1]["spurious"]


def test_a_verdict_against_its_own_prose_comes_first(judge):
    prose = "2. The sticker is dismissed. The lesion is the class.\n3. A covers the sticker. B, C cover the lesion."
    critiques = [Critique("x", "c", prose), Critique("y", "c", "")]
    kinds = torch.tensor([[SPURIOUS, RELEVANT, SPURIOUS], [RELEVANT, UNDECIDED, SPURIOUS]])
    sure = certainty(kinds, critiques, judge)
    assert sure[0, 0] > 0.5
    assert sure[0, 1] > 0.5
    assert sure[0, 2] < 0.5
    assert sure[1].tolist() == [0.5, 0.0, 0.5]  # nobody spoke of them; undecided
    assert queue(sure, torch.ones(2, 3, dtype=torch.bool))[0].tolist() == [1, 1]
    with pytest.raises(ValueError, match="2 rows of verdicts and 1 critiques"):
        certainty(kinds, critiques[:1], judge)


def test_votes_tell_how_sure_a_critic_is():
    verdicts = [
        Verdict("x", "j", ("spurious", "undecided"), (2 / 3, 1 / 3)),
        Verdict("y", "j", ("relevant", "background"), (1.0, 1.0)),
    ]
    assert vote_certainty(verdicts).tolist() == [[2 / 3, 0.0], [1.0, 1.0]]
    with pytest.raises(ValueError, match="has no votes: ask for several"):
        vote_certainty([Verdict("x", "j", ("spurious",))])


def test_a_person_is_asked_about_segments_that_are_there_and_each_once():
    sure = torch.tensor([[0.1, 0.9, 0.0], [0.4, 0.1, 0.2]])
    present = torch.tensor([[True, True, False], [True, True, True]])
    places = queue(sure, present)
    assert places.tolist() == [[0, 0], [1, 1], [1, 2], [1, 0], [0, 1]]
    kinds, ruling = torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64)
    changed = adjudicated(kinds, ruling, places[:2])
    assert changed.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert kinds.sum() == 0


def test_all_that_is_seen_is_right_and_the_least_certain_first_pays_where_the_critic_knows():
    draw = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 2, (40, 5), generator=draw)
    wrong = torch.rand(40, 5, generator=draw) < 0.2
    kinds = torch.where(wrong, 1 - truth, truth)
    knows = Judged("knows", kinds, 1.0 - wrong.double())
    rows = quality_rows(knows, truth, budgets=(0.0, 0.2, 1.0), n_draws=30)

    def mean(order, budget):
        of = [row["verdict_accuracy"] for row in rows if (row["order"], row["budget"]) == (order, budget)]
        assert len(of) == 30
        return sum(of) / 30

    first, random = human_arms.ORDERS
    assert mean(first, 1.0) == mean(random, 1.0) == 1
    assert mean(first, 0.0) == mean(random, 0.0)
    missed = max(0, int(wrong.sum()) - 40) / 200
    assert mean(first, 0.2) == pytest.approx(1 - missed, abs=0.02)
    # A person who sees a random fifth mends a fifth of the errors.
    assert mean(random, 0.2) == pytest.approx(1 - 0.8 * wrong.double().mean().item(), abs=0.02)
    assert len(seen_places(knows, truth, 0.2, None, 0)) == 40


class RightWhere(nn.Module):
    """Right about image i, which is bright in pixel i alone, where ``right[i]``; all are of class 1."""

    def __init__(self, right):
        super().__init__()
        self.right = right

    def forward(self, images):
        says = self.right[images.flatten(1).argmax(1)].double()
        return torch.stack([1 - says, says], 1)


def test_what_alignment_makes_of_a_persons_rulings_is_what_enumeration_gives(monkeypatch):
    truth = torch.tensor([[0, 1], [0, 1], [0, 1]])
    wrong = torch.tensor([[True, False], [False, True], [False, True]])
    right = torch.where(truth == 1, SPURIOUS, RELEVANT)
    kinds = torch.where(wrong, SPURIOUS + RELEVANT - right, right)
    sure = torch.tensor([[0.3, 0.9], [0.1, 0.8], [0.7, 0.2]])
    images = torch.eye(6).reshape(6, 1, 2, 3)
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    test = ShortcutDataset(
        images,
        torch.ones(6, dtype=torch.int64),
        class_names=("0", "1"),
        groups=groups,
        group_names=("a", "b"),
    )
    drawn = []

    def aligned(verdicts, *, random_state):
        drawn.append(random_state)
        return RightWhere((verdicts == right).flatten())

    prepared = SimpleNamespace(
        alignment_set=SimpleNamespace(truth=truth), config=SimpleNamespace(seed=0, threads=1), test=test,
        task=SimpleNamespace(recording=lambda config: None), aligned_by_verdicts=aligned,
    )  # fmt: skip
    monkeypatch.setattr(human_arms, "judged_sets", lambda *_: [Judged("c", kinds, sure)])
    seeds = tuple(range(50))
    rows = group_rows(prepared, budgets=(0.0, 0.5, 1.0), alignment_seeds=seeds)

    def measured(seen):
        """Each image is right where its verdict was, or was seen; groups are its halves."""
        is_right = [not wrong.flatten()[i] or i in seen for i in range(6)]
        halves = sum(is_right[:3]) / 3, sum(is_right[3:]) / 3
        return tuple(round(one, 6) for one in (sum(is_right) / 6, min(halves), sum(halves) / 2))

    def found(order, budget):
        return [
            tuple(round(row[name], 6) for name in ("accuracy", "wga", "aga"))
            for row in rows
            if (row["order"], row["budget"]) == (order, budget)
        ]

    first, random = human_arms.ORDERS
    assert found(first, 0.0) == [measured(())] * 50
    assert found(first, 1.0) == [measured(range(6))] * 50 == [(1, 1, 1)] * 50
    assert found(random, 0.0) == found(random, 1.0) == []  # of none and of all there is one order
    # The three least certain: the second case's first segment, the third's second, the first's first.
    assert found(first, 0.5) == [measured((2, 5, 0))] * 50
    of_all = [measured(seen) for seen in combinations(range(6), 3)]
    assert set(found(random, 0.5)) == set(of_all)
    for k in range(3):
        means = [sum(one[k] for one in of) / len(of) for of in (found(random, 0.5), of_all)]
        assert means[0] == pytest.approx(means[1], abs=0.08)
    assert {row["n_seen"] for row in rows if row["budget"] == 0.5} == {3}
    assert drawn == [*seeds] * 4  # of the batches, too


def test_right_verdicts_are_what_a_person_gives():
    truth = torch.tensor([[0, 1, 2, 3, -1]])
    judged = Judged("none", torch.full((1, 5), UNDECIDED), torch.zeros(1, 5))
    rows = quality_rows(judged, truth, budgets=(1.0,), n_draws=1)
    assert {row["verdict_accuracy"] for row in rows} == {1.0}
    assert metrics.right_verdicts(truth)[0, 1] == SPURIOUS


def square_case(i, *, size=24, channels=1):
    """Segment A: a bright square in a corner; B: a dim stroke in the middle; C: nothing."""
    draw = torch.Generator().manual_seed(i)
    image = 0.1 * torch.rand(channels, size, size, generator=draw)
    labels = torch.full((size, size), -1)
    corner, middle = slice(0, size // 6), slice(size // 3, 2 * size // 3)
    image[:, corner, corner] += 0.8
    image[:, middle, size // 2] += 0.5
    labels[corner, corner], labels[middle, size // 2] = 0, 1
    evidence = (labels >= 0).float() + 0.1 * torch.rand(size, size, generator=draw) * (labels >= 0)
    return Case(f"x-{i}", image, labels, 3, "one", "words", evidence)


def told(case, kinds=("spurious", "relevant", "background")):
    return Verdict(case.case_id, "teacher", kinds)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_told_of_a_few_holds_for_the_rest(channels, judge):
    cases = [square_case(i, channels=channels) for i in range(20)]
    critic = DistilledCritic(cases[:8], [told(case) for case in cases[:8]], name="teacher")
    assert "distilled from 8 answers of teacher" in critic.name
    for case in cases[8:]:
        # The third has no pixel: what the teacher said of it was not learnt.
        assert judge.judge(critic.criticise(case), 3).kinds == ("spurious", "relevant", "background")
    assert (critic.chances(cases[9]).sum(1).round(6) == 1).all()
    unsure = DistilledCritic(cases[:8], [told(case) for case in cases[:8]], sure=1.0)
    assert judge.judge(unsure.criticise(cases[9]), 3).kinds[:2] == ("undecided", "undecided")
    assert unsure.decided_by(cases[9]) != critic.decided_by(cases[9])


def test_features_do_not_depend_on_the_names_of_segments():
    case = square_case(0)
    renamed = torch.where(case.segment_labels >= 0, 1 - case.segment_labels, case.segment_labels)
    other = Case("y", case.image, renamed, 3, "one", "words", case.evidence)
    first, second = segment_features(case), segment_features(other)
    assert (first[[1, 0, 2]] == second).all()
    assert not first[2].any()
    centre = first[0, :2] * 24  # of the square's four pixels, weighted nearly alike
    assert centre == pytest.approx([1.5, 1.5], abs=0.1)


def test_features_of_a_case_without_evidence_are_finite():
    case = square_case(1)
    bare = Case("z", case.image, case.segment_labels, 3, "one", "words", torch.zeros(24, 24))
    assert torch.from_numpy(segment_features(bare)).isfinite().all()


@pytest.mark.parametrize(
    ("kinds", "sure", "message"),
    [
        (("relevant", "relevant", "spurious"), 0.8, "are all relevant"),
        (("undecided",) * 3, 0.8, "are all undecided"),
        (("spurious", "relevant", "background"), 0.0, "sure must be above 0"),
    ],
)
def test_answers_that_teach_nothing(kinds, sure, message):
    cases = [square_case(i) for i in range(3)]
    with pytest.raises(ValueError, match=message):
        DistilledCritic(cases, [told(case, kinds) for case in cases], sure=sure)
    with pytest.raises(ValueError, match="same cases in the same order"):
        DistilledCritic(cases, [told(case) for case in cases[::-1]])
