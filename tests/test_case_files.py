"""Cases to files and back: what is read back is what replay serves, and nothing else is let in."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from few_decoys import take_few
from PIL import Image

from lvlmva_lite.cli import main
from lvlmva_lite.critic import Case, prompts
from lvlmva_lite.critic.case_files import PANELS, CaseFilesError, export_cases, import_answers
from lvlmva_lite.critic.openai_critic import OpenAICritic, OpenAIJudge, critic_request
from lvlmva_lite.critic.panels import render_panels
from lvlmva_lite.critic.store import AnswerStore, StoreError


def make_case(number: int) -> Case:
    """28 x 28, segments A, B and D; C has no pixel."""
    draw = torch.Generator().manual_seed(number)
    labels = torch.tensor([0, 1, 3, -1]).repeat_interleave(7)[None].expand(28, 28)
    image = torch.rand(1, 28, 28, generator=draw)
    return Case(
        f"decoy-mnist-{number}",
        image,
        labels,
        4,
        "digit 3",
        'Strokes matter; "<b>" & ünïcode.',
        torch.ones(image.shape[1:]),
    )


CASES = [make_case(number) for number in range(3)]
CRITIQUE = '1. I see a three.\n6. Segment A is spurious. “Quoted”, \\n and "so" on.'


@pytest.fixture
def folder(tmp_path):
    export_cases(CASES, tmp_path / "cases")
    return tmp_path / "cases"


@pytest.fixture
def store(tmp_path):
    return AnswerStore(tmp_path / "answers")


def fill(case_folder, **fields):
    good = {
        "model": "reader-1",
        "date": "2026-11-21",
        "critique": CRITIQUE,
        "verdicts": {"A": "spurious", "B": "relevant", "D": "undecided"},
    }
    (case_folder / "answer.json").write_text(json.dumps(good | fields), "utf-8")


def replayed(store, case, model="reader-1"):
    critique = OpenAICritic(model, store.replay, provider="replay").criticise(case)
    return critique, OpenAIJudge(model, store.replay, provider="replay").judge(critique, case.n_segments)


def test_round_trip(folder, store, tmp_path):
    for case in CASES:
        fill(folder / case.case_id, critique=f"{CRITIQUE} {case.case_id}")
    imported = import_answers(folder, store)
    assert imported.recorded == [case.case_id for case in CASES]
    assert (imported.known, imported.unanswered, imported.refused) == ([], [], {})
    store.close()
    again = AnswerStore(tmp_path / "answers", read_only=True)
    for case in CASES:
        critique, verdict = replayed(again, case)
        assert critique.text == f"{CRITIQUE} {case.case_id}"
        # C, which nobody can see, is background.
        assert verdict.kinds == ("spurious", "relevant", "background", "undecided")
    for record in again.records():
        assert record["model"] == "reader-1"
        assert (record["answer"]["date"], record["answer"]["source"]) == (
            "2026-11-21",
            "recorded elsewhere",
        )


def test_the_export_holds_what_a_critic_is_shown_word_for_word(folder):
    for case in CASES:
        here, panels = folder / case.case_id, render_panels(case)
        drawn = [panels.image, panels.segment_map, panels.overlay]
        assert [(here / name).read_bytes() for name in PANELS] == drawn
        assert (here / "prompt.txt").read_text("utf-8") == "\n\n".join(prompts.critic_text(case)) + "\n"
        assert json.loads((here / "answer.json").read_text("utf-8"))["verdicts"] == {
            "A": "",
            "B": "",
            "D": "",
        }
    readme = (folder / "README.md").read_text("utf-8")
    assert '"relevant", "spurious", "background", "undecided"' in readme
    assert "written `\\n`" in readme


def test_of_a_half_filled_folder_the_answers_are_kept_and_the_rest_is_listed(folder, store):
    fill(folder / CASES[0].case_id)
    fill(folder / CASES[1].case_id, date="")
    imported = import_answers(folder, store)
    assert imported.recorded == [CASES[0].case_id]
    assert imported.refused == {CASES[1].case_id: "date is missing"}
    assert imported.unanswered == [CASES[2].case_id]
    assert imported.summary().splitlines() == [
        "1 answers recorded, 0 already there, 1 cases unanswered, 1 refused",
        "unanswered: decoy-mnist-2",
        "refused: decoy-mnist-1: date is missing",
    ]
    assert len(store) == 2
    with pytest.raises(StoreError, match="no recorded answer"):
        replayed(store, CASES[2])

    fill(folder / CASES[1].case_id, critique="Another text.")
    imported = import_answers(folder, store)
    assert (imported.known, imported.recorded) == ([CASES[0].case_id], [CASES[1].case_id])
    assert len(store) == 4


def test_model_and_date_may_be_given_once_for_all(folder, store):
    fill(folder / CASES[0].case_id, model="", date="")
    fill(folder / CASES[1].case_id, model="reader-2", date="")
    assert not import_answers(folder, store, model="reader-1", date="2026-11-20").refused
    assert replayed(store, CASES[0])[0].text == CRITIQUE
    assert replayed(store, CASES[1], "reader-2")[0].text == CRITIQUE
    assert {record["answer"]["date"] for record in store.records()} == {"2026-11-20"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": " "}, "model is missing"),
        ({"date": ""}, "date is missing"),
        ({"critique": ""}, "critique is missing"),
        ({"date": "yesterday"}, "YYYY-MM-DD"),
        ({"date": 20261121}, "date must be a text"),
        ({"verdicts": {"A": "spurious", "B": "relevant"}}, "leaves out segments: D"),
        ({"verdicts": {"A": "spurious", "B": "relevant", "D": ""}}, "verdict on segment D is none of"),
        ({"verdicts": {"A": "spurious", "B": "relevant", "D": "yes"}}, "verdict on segment D is none of"),
        ({"verdicts": {"A": "spurious", "B": "relevant", "D": True}}, "D must be a text"),
        ({"verdicts": {"A": "relevant", "B": "relevant", "C": "relevant", "D": "relevant"}}, "asked about: C"),
        ({"verdicts": {"A": "relevant", "a": "relevant", "B": "relevant", "D": "relevant"}}, "more than once: A"),
        ({"verdicts": {}}, "no verdicts"),
        ({"verdicts": ["A"]}, "must be a JSON object"),
        ({"who": "x"}, "unknown field 'who'"),
    ],
)  # fmt: skip
def test_a_bad_answer_is_refused_in_one_line_and_leaves_no_trace(folder, store, fields, words):
    fill(folder / CASES[0].case_id, **fields)
    imported = import_answers(folder, store)
    assert words in imported.refused[CASES[0].case_id]
    assert "\n" not in imported.refused[CASES[0].case_id]
    assert len(store) == 0


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("answer.json", '{"model": "a", "verdicts": {"A": "relevant", "A": "spurious"}}', "gives A more than once"),
        ("answer.json", '{"model": "a", ', "no JSON"),
        ("answer.json", "[]", "must hold a JSON object"),
        ("answer.json", None, "cannot read answer.json"),
        ("overlay.png", None, "cannot read overlay.png"),
        ("case.json", '{"prompt_version": "critic-0"}', "version critic-0, which is asked no more"),
    ],
)  # fmt: skip
def test_damaged_files_are_named(folder, store, file, text, words):
    here = folder / CASES[0].case_id
    fill(here)
    (here / file).unlink() if text is None else (here / file).write_text(text, "utf-8")
    assert words in import_answers(folder, store).refused[CASES[0].case_id]
    assert len(store) == 0


def test_case_files_cannot_make_it_read_elsewhere(folder, store):
    here = folder / CASES[0].case_id
    fill(here)
    asked = (here / "case.json").read_text("utf-8")
    (here / "case.json").write_text(asked.replace("overlay.png", "../README.md"), "utf-8")
    assert "not as it was written" in import_answers(folder, store).refused[CASES[0].case_id]


def test_a_second_answer_under_the_same_name_is_refused_and_the_first_stays(folder, store):
    fill(folder / CASES[0].case_id)
    import_answers(folder, store)
    for change, words in (
        ({"critique": "Something else."}, "another critique of this case by 'reader-1'"),
        ({"verdicts": dict.fromkeys(("A", "B", "D"), "relevant")}, "another verdict on this same critique"),
    ):
        fill(folder / CASES[0].case_id, **change)
        assert words in import_answers(folder, store).refused[CASES[0].case_id]
        assert replayed(store, CASES[0])[0].text == CRITIQUE
    assert len(store) == 2


def test_pictures_packed_otherwise_by_an_earlier_version_are_the_same(folder, store):
    fill(folder / CASES[0].case_id)
    for name in PANELS:
        file = folder / CASES[0].case_id / name
        before = file.read_bytes()
        with Image.open(file) as picture:
            picture.save(file)
        assert file.read_bytes() != before
    assert import_answers(folder, store).recorded == [CASES[0].case_id]
    assert store.get(critic_request(CASES[0], "reader-1")) is not None


def test_an_answer_to_an_altered_picture_is_not_served(folder, store):
    fill(folder / CASES[0].case_id)
    file = io.BytesIO()
    Image.fromarray(np.zeros((532, 532, 3), np.uint8)).save(file, "png")
    (folder / CASES[0].case_id / "image.png").write_bytes(file.getvalue())
    import_answers(folder, store)
    with pytest.raises(StoreError, match="no recorded answer"):
        replayed(store, CASES[0])


@pytest.mark.parametrize("answered", [(), (7,), (7, 8)])
def test_a_folder_of_an_older_version_is_refused_in_one_line(tmp_path, capsys, monkeypatch, answered):
    """As commit cd4cbaf wrote it: prompt critic-1 of two words, no brightness."""
    old = shutil.copytree(Path(__file__).parent / "cases_of_critic_1", tmp_path / "old")
    for number in answered:
        fill(old / f"decoy-mnist-{number}", verdicts={"A": "spurious", "B": "relevant"})
    before = {file: file.read_bytes() for file in old.rglob("*.*")}
    arguments = ["critic", "import", str(old), "--store", str(tmp_path / "answers")]
    monkeypatch.setattr("sys.argv", ["lvlmva", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    told = capsys.readouterr()
    assert (done.value.code, told.out) == (2, "")
    assert told.err.count("\n") == 1
    assert "written with the prompt critic-1+case-1+again-1" in told.err
    assert "write them anew with `lvlmva critic cases`" in told.err
    assert {file: file.read_bytes() for file in old.rglob("*.*")} == before
    assert not AnswerStore(tmp_path / "answers").list()


def test_one_old_case_among_others_is_refused_by_its_name(folder, store):
    shutil.copytree(Path(__file__).parent / "cases_of_critic_1" / "decoy-mnist-8", folder / "decoy-mnist-8")
    fill(folder / CASES[0].case_id)
    fill(folder / "decoy-mnist-8", verdicts={"A": "spurious", "B": "relevant"})
    imported = import_answers(folder, store)
    assert imported.recorded == [CASES[0].case_id]
    assert list(imported.refused) == ["decoy-mnist-8"]
    assert "version critic-1+case-1+again-1" in imported.refused["decoy-mnist-8"]


@pytest.mark.slow
def test_the_commands_make_the_same_round_trip(tmp_path, capsys, monkeypatch):
    """From export over answers to an evaluation of what was recorded, with no server anywhere."""
    monkeypatch.chdir(tmp_path)
    take_few(monkeypatch.setattr)

    def lvlmva(command: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["lvlmva", "critic", *command.split()])
        with pytest.raises(SystemExit) as done:
            main()
        told = capsys.readouterr()
        return done.value.code or 0, told.out, told.err

    of_run = "decoy-mnist --n 2 --train-epochs 10 --quiet"
    replay = f"evaluate {of_run} --critic replay --critic-model reader-1 --out evaluation"
    status, out, _ = lvlmva(f"cases {of_run} --out cases")
    assert (status, out) == (0, "2 cases: cases; cases/README.md says how to answer them\n")
    assert lvlmva(f"cases {of_run} --out cases")[0::2] == (
        2, "lvlmva: cases is not empty; give a new folder\n",
    )  # fmt: skip

    first, second = sorted(file.parent for file in (tmp_path / "cases").glob("*/answer.json"))
    for number, folder in enumerate([first, second]):
        names = json.loads((folder / "answer.json").read_text("utf-8"))["verdicts"]
        verdicts = dict.fromkeys(names, "relevant")
        fill(folder, model="", critique=f"Answer {number}.", verdicts=verdicts)
    status, out, err = lvlmva("import cases")
    assert (status, err) == (1, "")
    assert "0 answers recorded, 0 already there, 0 cases unanswered, 2 refused" in out
    assert f"refused: {first.name}: model is missing" in out
    assert lvlmva(replay)[0] == 1  # the store is there, with nothing in it
    status, out, _ = lvlmva("import cases --model reader-1")
    assert (status, out.splitlines()[0]) == (
        0, "2 answers recorded, 0 already there, 0 cases unanswered, 0 refused",
    )  # fmt: skip
    status, out, _ = lvlmva(replay)
    assert status == 0
    assert "replay:reader-1: sensitivity 0.000, specificity 1.000" in out
    assert "undecided 0.000" in out


def test_folders_that_cannot_work(tmp_path, store, folder):
    with pytest.raises(CaseFilesError, match="not empty"):
        export_cases(CASES, folder)
    with pytest.raises(CaseFilesError, match="distinct"):
        export_cases([CASES[0], CASES[0]], tmp_path / "twice")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaseFilesError, match="holds no cases"):
        import_answers(tmp_path / "empty", store)
    (tmp_path / "file").write_text("")
    with pytest.raises(CaseFilesError, match="cannot write"):
        export_cases(CASES, tmp_path / "file")
