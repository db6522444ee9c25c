import json
import multiprocessing
from dataclasses import asdict, replace

import pytest
import torch

from lvlmva_lite.config import ConfigError
from lvlmva_lite.critic import Case, Critique, LexiconCritic, TextJudge
from lvlmva_lite.critic.batch import criticise_all, judge_all
from lvlmva_lite.critic.simulated import SimulatedCritic
from lvlmva_lite.run_folder import RunFolder
from lvlmva_lite.tasks import DecoyMNIST, Knee

TASK = DecoyMNIST()
CONFIG = TASK.config(seed=3)


def folder_of(path, config=CONFIG):
    """The folder, claimed and let go."""
    with RunFolder(path, TASK, config) as folder:
        folder.add_critique(Critique("case-0", "lexicon", "One."))
    return path


def known(path):
    with RunFolder(path, TASK, CONFIG) as folder:
        return folder.known_critiques()


def test_interrupted_run_is_taken_up_with_its_answers(tmp_path, caplog):
    answers = [Critique(f"case-{i}", "lexicon", "Line one.\nLine “two”.") for i in range(3)]
    with RunFolder(tmp_path / "run", TASK, CONFIG) as folder:
        for answer in answers:
            folder.add_critique(answer)
    with (tmp_path / "run/critiques.jsonl").open("a") as file:
        file.write('{"case_id": "case-3", "crit')  # killed in the middle of a line
    with RunFolder(tmp_path / "run", TASK, CONFIG) as again:
        assert list(again.known_critiques().values()) == answers
        assert "critiques.jsonl, line 4" in caplog.text
        again.add_critique(Critique("case-3", "lexicon", "Anew."))
    assert list(known(tmp_path / "run")) == [(f"case-{i}", 0) for i in range(4)]


@pytest.mark.parametrize(
    "line",
    [
        b"not json", b"[]", b"null", b"{}", b'{"case_id": 3, "critic": "c", "text": "t"}', b"\xff\xfe",
        b'{"case_id": "c", "critic": "c", "text": null}', b"[" * 100_000,
        b'{"case_id": "c", "critic": "c", "text": "t", "asked_about": 7}',
        b'{"case_id": "c", "critic": "c", "text": "t", "sample": NaN}',
        b'{"case_id": "c", "critic": "c", "text": "t", "surplus": 1}',
    ],
)  # fmt: skip
def test_a_damaged_line_is_named_and_passed_over(tmp_path, caplog, line):
    folder_of(tmp_path)
    good = (tmp_path / "critiques.jsonl").read_bytes()
    (tmp_path / "critiques.jsonl").write_bytes(line + b"\n" + good)
    assert list(known(tmp_path)) == [("case-0", 0)]
    assert "critiques.jsonl, line 1 is passed over" in caplog.text


@pytest.mark.parametrize("text", [b"{", b"\xff", b""])
def test_damaged_settings_are_refused_in_a_line(tmp_path, text):
    folder_of(tmp_path)
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(ConfigError, match="is damaged"):
        RunFolder(tmp_path, TASK, CONFIG)


def test_folder_of_other_settings_is_refused(tmp_path):
    folder_of(tmp_path)
    with pytest.raises(ConfigError, match=r"holds another run, unfinished.*give --out a new folder"):
        RunFolder(tmp_path, TASK, TASK.config(seed=4))


def test_finished_run_is_not_overwritten(tmp_path):
    folder_of(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds another run"):
        RunFolder(tmp_path, TASK, CONFIG)


@pytest.mark.parametrize("name", ["thesis.tex", "film.part"])
def test_strangers_files_are_left_alone(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(ConfigError, match="is not empty"):
        RunFolder(tmp_path, TASK, CONFIG)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file; give --out a folder"):
        RunFolder(tmp_path / "file", TASK, CONFIG)


def test_settings_are_there_with_the_first_answer_and_not_before(tmp_path):
    """A run that the data refuse leaves the folder free for other settings."""
    with RunFolder(tmp_path / "run", TASK, CONFIG):
        pass
    settings = json.loads((folder_of(tmp_path / "run", TASK.config(seed=4)) / "config.json").read_text())
    assert settings["seed"] == 4
    assert "grey square" in settings["description"]


def test_what_was_being_written_when_the_process_was_killed_is_no_obstacle(tmp_path):
    (tmp_path / "config.json.4711.part").write_text('{"se')
    folder_of(tmp_path)
    assert not list(tmp_path.glob("*.part"))


def _claim(path, answers):
    try:
        RunFolder(path, TASK, CONFIG)
        answers.put("mine")
    except ConfigError as error:
        answers.put(str(error))


def test_a_second_process_is_refused_and_may_have_it_afterwards(tmp_path):  # client_faults 36
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def of_another_process():
        process = context.Process(target=_claim, args=(tmp_path, answers))
        process.start()
        return answers.get(timeout=60)

    with RunFolder(tmp_path, TASK, CONFIG):
        assert "another process is writing" in of_another_process()
    assert of_another_process() == "mine"


# Which critiques are taken over


def case(name="decoy-1", **changes):
    labels = torch.zeros(28, 28, dtype=torch.int64)
    labels[:, 14:] = 1
    fields = {"image": torch.linspace(0, 1, 784).view(1, 28, 28), "segment_labels": labels, "n_segments": 2}
    words = {"class_name": "7", "description": "The grey square means nothing."}
    return Case(name, **(fields | words | {"evidence": torch.ones(28, 28)} | changes))


class CountingCritic:
    """Says that all is relevant, and counts what it was asked."""

    samples = concurrency = 1

    def __init__(self, name="counting", temperature=0.0):
        self.name, self.temperature, self.asked = name, temperature, []

    def criticise(self, case, sample=0):
        self.asked.append((case.case_id, sample))
        return Critique(case.case_id, self.name, "Segment A is relevant. Segment B is relevant.", sample)

    def decided_by(self, case):
        return [self.temperature]


def asked_again(case_then, case_now, then=None, now=None, folder=None):
    """Whether the second run asks, its critique going through the file."""
    first = criticise_all(then or CountingCritic(), [case_then])
    with RunFolder(folder, TASK, CONFIG) as run:
        for critique in first:
            run.add_critique(critique)
        kept = run.known_critiques()
    assert list(kept.values()) == first
    now = now or CountingCritic()
    criticise_all(now, [case_now], known=kept)
    return bool(now.asked)


def test_a_critique_is_taken_over_for_the_question_that_it_answered(tmp_path, caplog):
    assert not asked_again(case(), case(), folder=tmp_path)
    assert not caplog.text


def _moved(labels):
    moved = labels.clone()
    moved[3, 3] = 1
    return moved


@pytest.mark.parametrize(
    "other",
    [
        {"image": case().image + 1e-6},
        {"segment_labels": _moved(case().segment_labels)},
        {"n_segments": 3},
        {"class_name": "8"},
        {"description": "The grey square means something."},
    ],
)
def test_a_critique_of_another_case_of_the_same_name_is_not(tmp_path, caplog, other):
    assert asked_again(case(), case(**other), folder=tmp_path)
    assert "1 of 1" in caplog.text
    assert "another question" in caplog.text


def test_a_critique_by_another_critic_is_not(tmp_path):
    assert asked_again(case(), case(), now=CountingCritic("other"), folder=tmp_path / "a")
    assert asked_again(case(), case(), now=CountingCritic(temperature=1.0), folder=tmp_path / "b")


def test_the_truth_is_part_of_what_a_simulated_critic_was_asked():
    critics = [SimulatedCritic({"decoy-1": truth}, 1.0) for truth in ([True, False], [False, False])]
    said = criticise_all(critics[0], [case()])
    assert criticise_all(critics[1], [case()], known={("decoy-1", 0): said[0]})[0].text != said[0].text


def test_a_file_of_an_older_version_is_asked_again_and_so_it_says(tmp_path, caplog):
    folder_of(tmp_path)
    fields = asdict(criticise_all(CountingCritic(), [case()])[0])
    del fields["question"]
    (tmp_path / "critiques.jsonl").write_text(json.dumps(fields) + "\n")
    critic = CountingCritic()
    criticise_all(critic, [case()], known=known(tmp_path))
    assert critic.asked == [("decoy-1", 0)]
    assert "an older version wrote them" in caplog.text


def test_only_what_changed_is_asked_again(caplog):
    cases = [case(f"decoy-{i}", class_name=str(i)) for i in range(5)]
    kept = {(c.case_id, c.sample): c for c in criticise_all(CountingCritic(), cases)}
    cases[2] = replace(cases[2], class_name="9")
    critic = CountingCritic()
    arrived = []
    said = criticise_all(critic, cases[:4], known=kept, on_critique=arrived.append)
    assert critic.asked == [("decoy-2", 0)] == [(c.case_id, c.sample) for c in arrived]
    assert [c.case_id for c in said] == [f"decoy-{i}" for i in range(4)]
    assert "1 of 5" in caplog.text
    assert "not among these" in caplog.text


def test_an_image_without_a_segment_is_not_asked_about():
    empty = case("decoy-2", segment_labels=torch.full((28, 28), -1))
    critic = CountingCritic()
    critic.samples = 3
    said = criticise_all(critic, [empty, case()])
    assert critic.asked == [("decoy-1", i) for i in range(3)]
    assert len(said) == 6
    verdict = judge_all(TextJudge(), said, 2)[0]
    assert set(verdict.kinds) == {"undecided"}
    # The lexicon, too, has nothing to say of nothing.
    assert criticise_all(LexiconCritic(), [empty])[0].text == ""


def test_a_folder_of_another_method_or_another_task_is_refused(tmp_path):
    folder_of(tmp_path)
    for task, method in ((TASK, "jtt"), (Knee(), "lvlm-va")):
        with pytest.raises(ConfigError, match="holds another run"):
            RunFolder(tmp_path, task, CONFIG, method)


def test_a_folder_in_which_nothing_was_written_goes_and_one_that_was_there_stays(tmp_path):
    with RunFolder(tmp_path / "new", TASK, CONFIG):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    with RunFolder(tmp_path / "mine", TASK, CONFIG):
        pass
    assert (tmp_path / "mine").is_dir()
