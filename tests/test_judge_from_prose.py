"""The judge without verdict lines: nothing of them is left, and the scores are those of a count by hand."""

import pytest

from lvlmva_lite.critic import Critique, TextJudge, recordings
from lvlmva_lite.critic.text_judge import LEARNT_FROM
from lvlmva_lite.experiments import judge_from_prose
from lvlmva_lite.experiments.judge_from_prose import prose, prose_scores


@pytest.mark.parametrize(("source", "seed"), recordings.recorded_sets())
def test_the_prose_holds_no_verdict_lines(source, seed):
    for answer in recordings.find(source, seed).answers["critic-2"].values():
        left = prose(answer.critique)
        assert "\n5." in left
        assert not any(f"Segment {name} is {kind}." in left for name, kind in answer.verdicts.items())


def test_agreement_is_what_a_count_by_hand_gives():
    scores = prose_scores(["knee-phantom", "skin-phantom"]).set_index("learnt_from")
    assert LEARNT_FROM == ("skin-phantom", judge_from_prose.SEED)
    judge = TextJudge()  # as it ships
    words, right, opened = [], 0, 0
    for answer in recordings.find("knee-phantom", 0).answers["critic-2"].values():
        said = judge.judge(Critique("x", "y", answer.critique.split("\n6.")[0]), 6).kinds
        for letter, meant in answer.verdicts.items():
            words.append(meant)
            right += said["ABCDEF".index(letter)] == meant
            opened += meant == "undecided" != said["ABCDEF".index(letter)]
    row = scores.loc["skin-phantom"]
    assert (row["read"], row["n_segments"]) == ("knee-phantom", len(words))
    assert row["agreement"] == pytest.approx(right / len(words))
    assert row["commonest"] == pytest.approx(max(words.count(word) for word in set(words)) / len(words))
    assert scores.loc["knee-phantom", "read"] == "skin-phantom"
    assert row["n_undecided"] == words.count("undecided")
    assert sum(row[f"undecided_as_{kind}"] for kind in ("relevant", "spurious", "background")) == opened
