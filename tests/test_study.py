import csv
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from browser import Browser, executable

from lvlmva_lite.cli import main
from lvlmva_lite.critic import Case
from lvlmva_lite.study import (
    StudyError,
    Trial,
    agreement_table,
    as_markdown,
    read_answers,
    recorded_raters,
    simulated_raters,
    study_page,
    study_trials,
)
from lvlmva_lite.study.answers import COLUMNS
from lvlmva_lite.study.trials import QUESTIONS, study_id

TRUTH = {"relevant": False, "spurious": True, "background": False}


def trial(i, kind):
    labels = torch.zeros(8, 8, dtype=torch.int64)
    labels[4:] = 1
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(i))
    case = Case(
        f"x-{i}", image, labels, 2, "cat <&>", "Ears count.\n</script><b>Not</b> the bell.", image[0]
    )
    return Trial(f"x-{i} A", case, "A", kind, 'A lies on the "ear", B, not.', "critic-2", TRUTH[kind])


@pytest.fixture(scope="module")
def trials():
    return [trial(i, list(TRUTH)[i % 3]) for i in range(6)]


def answers_file(folder, trials, participant, given, **changed):
    """A form's file; ``given`` : (trial, question) -> answer."""
    rows = [
        {"participant": participant, "study": study_id(trials), "position": i + 1, "trial": one.trial_id,
         "question": question, "answer": given(one, question), "seconds": 3} | changed
        for i, one in enumerate(trials) for question in QUESTIONS
    ]  # fmt: skip
    file = folder / f"answers-{participant}.csv"
    pd.DataFrame(rows)[list(COLUMNS)].to_csv(file, index=False)
    return file


def as_the_critic(one, question):
    return "yes" if question == "description" else one.critic


def row(table, measure, raters, other):
    found = table[(table["measure"] == measure) & (table["raters"] == raters) & (table["with"] == other)]
    assert len(found) == 1
    return found.iloc[0]


def test_agreement_by_hand(trials, tmp_path):
    # One says what the critic says; the other finds nothing spurious, that is 4 of 6 alike.
    def nothing_spurious(one, question):
        return (
            "relevant"
            if question == "verdict" and one.critic == "spurious"
            else as_the_critic(one, question)
        )

    files = [
        answers_file(tmp_path, trials, name, given)
        for name, given in (("aa", as_the_critic), ("bb", nothing_spurious))
    ]
    people = read_answers(files, trials)
    assert set(people["rater"]) == {"aa", "bb"}
    table = agreement_table(people, trials, n_resamples=50)
    two = row(table, "verdict, spurious or not", "people", "truth")
    assert (two["n_raters"], two["n_trials"]) == (2, 6)
    assert two["agreement"] == pytest.approx((1 + 4 / 6) / 2)
    # 1 for the first; the second gives one word throughout, which agrees as chance does.
    assert two["kappa"] == pytest.approx(0.5)
    assert two["low"] <= two["agreement"] <= two["high"]
    four = row(table, "verdict, four words", "people", "one another")
    assert four["agreement"] == pytest.approx(4 / 6)
    # Of 12 words 6 are relevant, 2 spurious, 4 background.
    chance = (36 + 4 + 16) / 144
    assert four["kappa"] == pytest.approx((4 / 6 - chance) / (1 - chance))
    assert row(table, "reading", "people", "critic")["agreement"] == 1
    described = row(table, "description is right", "people", "critic")
    assert described["agreement"] == 1
    assert np.isnan(described["kappa"])
    assert row(table, "verdict, spurious or not", "critic", "truth")["kappa"] == 1
    assert "| people | critic | 2 | 6 | 100 % (100 to 100) | – |" in as_markdown(table)


def test_simulated_raters_are_as_good_as_they_are_told(trials):
    sure = simulated_raters(trials, 3, accuracy=1.0)
    assert sure["rater"].str.startswith("simulated ").all()
    assert set(sure["kind"]) == {"simulated, no people"}
    table = agreement_table(sure, trials, n_resamples=5)
    assert row(table, "verdict, spurious or not", "simulated, no people", "truth")["agreement"] == 1
    many = simulated_raters(trials, 400, accuracy=0.8)
    told = many[many["question"] == "verdict"]
    truth = told["trial"].map({one.trial_id: one.spurious for one in trials})
    right = ((told["answer"] == "spurious") == truth).mean()
    assert right == pytest.approx(0.8, abs=4 * (0.16 / len(told)) ** 0.5)
    assert many.equals(simulated_raters(trials, 400, accuracy=0.8))
    for accuracy, n in ((1.1, 1), (0.5, -1)):
        with pytest.raises(ValueError, match="accuracy must lie between 0 and 1"):
            simulated_raters(trials, n, accuracy=accuracy)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"study": "old"}, "is of study 'old'"),
        ({"trial": "y-9 A"}, "which nobody asked"),
        ({"question": "age"}, "which nobody asked"),
        ({"answer": "maybe"}, "'maybe' is none of"),
        ({"trial": "x-0 A", "question": "reading", "answer": "relevant"}, "twice"),
    ],
)
def test_answers_that_cannot_be_used(trials, tmp_path, changed, message):
    file = answers_file(tmp_path, trials, "cc", as_the_critic, **changed)
    with pytest.raises(StudyError, match=message):
        read_answers([file], trials)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"participant,answer\na,b\n", "lacks the column 'study'"),
        (",".join(COLUMNS).encode(), "holds no answer"),
        (",".join(COLUMNS).encode() + b"\naa,bb\n", "cut off"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_files_that_no_form_gave(trials, tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(StudyError, match=message):
        read_answers([tmp_path / "a.csv"], trials)


def test_one_file_twice_is_told(trials, tmp_path):
    file = answers_file(tmp_path, trials, "dd", as_the_critic)
    with pytest.raises(StudyError, match="twice; leave one file out"):
        read_answers([file, file], trials)


def test_the_form_fetches_nothing_and_keeps_the_truth_to_itself(trials):
    page = study_page(trials)
    assert not re.search(r"https?://|src=\"(?!data:)|@import", page)
    data = json.loads(re.search(r"const data = (.*);\n", page)[1])
    told = {"id", "segment", "class", "words", "critique", "pictures"}
    assert all(set(one) == told for one in data["trials"])
    assert page.count("</script>") == 1  # words that look like markup end nothing
    assert data["trials"][0]["words"] == trials[0].case.description


@pytest.mark.slow
@pytest.mark.skipif(executable() is None, reason="there is no Chromium or Chrome; CHROMIUM names one")
def test_the_form_is_filled_in_and_its_file_is_read(trials, tmp_path):
    file = tmp_path / "study.html"
    file.write_text(study_page(trials, seed=5))
    with Browser(executable()) as browser:
        browser.open(file.as_uri())
        orders, texts = [], []
        for _ in range(2):
            assert browser.evaluate("document.getElementById('start').disabled")
            assert "lies on the" not in browser.evaluate("document.body.innerText")
            browser.evaluate(
                "document.getElementById('agree').click(), document.getElementById('start').click()"
            )
            answer = """(() => {{
              for (const name of {names}) document.querySelector(`input[name=${{name}}][value="{value}"]`).click();
              document.querySelector('#form button').click(); }})()"""
            for i in range(len(trials)):
                assert browser.evaluate("document.getElementById('where').textContent") == f"{i + 1} of 6"
                assert "lies on the" not in browser.evaluate("document.getElementById('trial').innerText")
                browser.evaluate(answer.format(names=["verdict"], value="undecided"))
                assert 'A lies on the "ear"' in browser.evaluate(
                    "document.getElementById('form').innerText"
                )
                if i == 2:  # closed by mistake, and opened again
                    browser.open(file.as_uri())
                browser.evaluate("document.querySelector('input[name=description][value=yes]').click()")
                browser.evaluate(answer.format(names=["reading"], value="relevant"))
            assert browser.evaluate("!document.getElementById('end').hidden")
            texts.append(browser.evaluate("table()"))
            orders.append(browser.evaluate("order.map(trial => trial.id)"))
            browser.evaluate("document.getElementById('forget').click()")
            browser.open(file.as_uri())
        assert not browser.messages
    assert sorted(orders[0]) == sorted(one.trial_id for one in trials)
    for k, text in enumerate(texts):
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [rows[i]["trial"] for i in range(0, 18, 3)] == orders[k]
        (tmp_path / f"{k}.csv").write_text(text)
    people = read_answers([tmp_path / "0.csv", tmp_path / "1.csv"], trials)
    assert people["rater"].nunique() == 2
    assert people["rater"].str.fullmatch(r"[0-9a-f]{8}").all()
    assert len(people) == 2 * 6 * 3
    assert set(people[people["question"] == "verdict"]["answer"]) == {"undecided"}


@pytest.mark.slow
def test_the_trials_and_both_commands(tmp_path, monkeypatch, capsys):
    trials = study_trials()
    assert len(trials) == 21
    assert len({one.case.case_id for one in trials}) == 21
    wrong = [one for one in trials if (one.critic == "spurious") != one.spurious]
    assert len(wrong) == 3
    for one in trials:
        assert f"Segment {one.segment} is" not in one.critique
        assert (one.case.segment_labels == "ABCDEF".index(one.segment)).any()
    raters = recorded_raters(trials)
    assert set(raters["rater"]) == {"claude, other prompt"}
    assert len(raters) == 7

    def run(*words):
        monkeypatch.setattr("sys.argv", ["lvlmva", "study", *map(str, words)])
        with pytest.raises(SystemExit) as done:
            main()
        return done.value.code, capsys.readouterr()

    assert not run("make", "--out", tmp_path)[0]
    assert study_id(trials) in (tmp_path / "study.html").read_text()
    status, said = run("analyse", "--out", tmp_path)
    assert not status
    assert "people: 0" in said.out
    assert "simulated, no people" in said.out
    file = answers_file(tmp_path, trials, "ee", as_the_critic)
    status, said = run("analyse", file, "--out", tmp_path)
    assert not status
    assert "simulated, no people" not in said.out
    table = pd.read_csv(tmp_path / "agreement.csv")
    assert row(table, "verdict, spurious or not", "people", "truth")["agreement"] == pytest.approx(18 / 21)
    answers = file.rename(tmp_path / "agreement.csv").read_bytes()
    status, said = run("analyse", tmp_path / "agreement.csv", "--out", tmp_path)
    assert status == 2
    assert "would be overwritten" in said.err
    assert (tmp_path / "agreement.csv").read_bytes() == answers
    status, said = run("analyse", tmp_path / "none.csv", "--out", tmp_path)
    assert status == 2
    assert "there is no file" in said.err
