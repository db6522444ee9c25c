"""Evaluation against scikit-learn and by hand; the simulated critic is as good as it says."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, cohen_kappa_score, recall_score

from lvlmva_lite.critic import Case, TextJudge, Verdict
from lvlmva_lite.critic.answers import Answer, Request
from lvlmva_lite.critic.simulated import SimulatedCritic
from lvlmva_lite.critic.types import KINDS
from lvlmva_lite.evaluation import cohen_kappa, evaluate, write_evaluation
from lvlmva_lite.tally import Tally

LABELS = torch.arange(4).repeat_interleave(4).view(4, 4)


def cases(n, labels=LABELS, n_segments=4):
    return [
        Case(f"case-{i}", torch.zeros(1, 4, 4), labels, n_segments, "ab"[i % 2], "words", torch.ones(4, 4))
        for i in range(n)
    ]


def verdicts(rows):
    return [Verdict(f"case-{i}", "judge", tuple(row)) for i, row in enumerate(rows)]


def rulings(n, kinds=KINDS):
    return st.lists(st.lists(st.sampled_from(kinds), min_size=4, max_size=4), min_size=n, max_size=n)


truths = st.lists(st.lists(st.sampled_from([0, 1, 2]), min_size=4, max_size=4), min_size=6, max_size=6)


@settings(max_examples=50, deadline=None)
@given(rulings(6, KINDS[:3]), truths)
def test_accuracies_are_scikit_learns(ruled, true):
    found = evaluate(cases(6), verdicts(ruled), torch.tensor(true))
    called, spurious = np.ravel(ruled) == "spurious", np.ravel(true) == 1
    assert found.accuracy == pytest.approx(accuracy_score(spurious, called))
    if len(set(spurious)) == 2:
        assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(spurious, called))
        assert found.sensitivity == pytest.approx(recall_score(spurious, called))
        assert found.specificity == pytest.approx(recall_score(~spurious, ~called))
    else:
        assert found.balanced_accuracy is None


@settings(max_examples=50, deadline=None)
@given(rulings(5), rulings(5))
def test_kappa_is_scikit_learns(first, second):
    kappa = cohen_kappa(cases(5), verdicts(first), verdicts(second))
    flat = [list(np.ravel(rows)) for rows in (first, second)]
    if kappa is None:
        assert len(set(flat[0] + flat[1])) == 1
    else:
        assert kappa == pytest.approx(cohen_kappa_score(*flat))


def test_empty_segments_do_not_count():
    labels = LABELS.clamp_max(2)  # the fourth segment holds no pixel
    found = evaluate(
        cases(2, labels),
        verdicts(
            [
                ("spurious", "relevant", "undecided", "relevant"),
                ("relevant", "background", "spurious", "spurious"),
            ]
        ),
        torch.tensor([[1, 0, 2, -1], [0, 2, 1, -1]]),
        critic="someone",
    )
    assert (found.n_cases, found.n_verdicts) == (2, 6)
    assert found.accuracy == pytest.approx(5 / 6)
    assert found.undecided == pytest.approx(1 / 6)
    assert (found.sensitivity, found.specificity) == (1, 1)
    none = dict.fromkeys(KINDS, 0)
    assert found.confusion["a"] == {
        "core": none | {"relevant": 1},
        "spurious": none | {"spurious": 1},
        "neither": none | {"undecided": 1},
    }
    assert found.confusion["all"]["spurious"]["spurious"] == 2


def test_mismatched_cases_are_refused():
    with pytest.raises(ValueError, match="same order"):
        evaluate(cases(2), verdicts([("spurious",) * 4])[:1], torch.zeros(2, 4, dtype=torch.int64))


def test_tokens_and_cost_are_counted_once_for_each_answer():
    answers = {"a": Answer("x", prompt_tokens=90, completion_tokens=10, cost=0.01), "b": Answer("y")}
    tally = Tally(lambda request: answers[request.model])
    for _ in range(2):
        tally(Request("critic", "a", "1", []))
    assert (tally.tokens, tally.cost) == (100, 0.01)
    found = evaluate(
        cases(1), verdicts([("spurious",) * 4]), torch.ones(1, 4, dtype=torch.int64), tally=tally
    )
    assert found.tokens_per_100_verdicts == 2500
    assert found.cost_per_100_verdicts == pytest.approx(0.25)
    tally(Request("critic", "b", "1", []))
    assert (tally.tokens, tally.cost) == (None, None)


def test_json_and_figure_are_written(tmp_path):
    found = evaluate(
        cases(2),
        verdicts([("spurious", "relevant", "undecided", "background")] * 2),
        torch.zeros(2, 4, dtype=torch.int64),
        critic="c",
    )
    write_evaluation(tmp_path / "new", [found, found], 0.5, dataset="d")
    written = json.loads((tmp_path / "new" / "evaluation.json").read_text())
    assert written["cohen_kappa"] == 0.5
    assert [provider["critic"] for provider in written["providers"]] == ["c", "c"]
    assert (tmp_path / "new" / "evaluation.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("accuracy", [0.0, 0.7, 1.0])
def test_the_simulated_critic_is_right_as_often_as_it_says(accuracy):
    """Read back by the text judge: within four standard errors over 1600 segments."""
    n = 400
    truth = {f"case-{i}": [(i + j) % 4 for j in range(4)] for i in range(n)}
    critic, judge = SimulatedCritic(truth, accuracy, seed=3), TextJudge()
    ruled = [judge.judge(critic.criticise(case), 4).kinds for case in cases(n)]
    true = np.array(list(truth.values()))
    right = np.mean((np.array(ruled) == "spurious") == (true == 1))
    assert abs(right - accuracy) <= 4 * np.sqrt(accuracy * (1 - accuracy) / (4 * n))
    if accuracy == 1:
        expected = np.array(["relevant", "spurious", "background", "relevant"])[true]
        assert (np.array(ruled) == expected).all()
    assert "simulated" in critic.name
    assert "Simulated" in critic.criticise(cases(1)[0]).text


def test_simulated_errors_depend_on_seed_and_segment_and_not_on_order():
    truth = {f"case-{i}": [1, 0, 1, 2] for i in range(40)}
    some = cases(40)
    texts = [SimulatedCritic(truth, 0.5, seed=1).criticise(case).text for case in some]
    again = SimulatedCritic(truth, 0.5, seed=1)
    assert [again.criticise(case).text for case in reversed(some)][::-1] == texts
    assert [SimulatedCritic(truth, 0.5, seed=2).criticise(case).text for case in some] != texts
    with pytest.raises(ValueError, match="between 0 and 1"):
        SimulatedCritic(truth, 1.5)
