import json

import pytest

from lvlmva_lite.config import Config, ConfigError
from lvlmva_lite.critic import Critique
from lvlmva_lite.run_folder import RunFolder

CONFIG = Config(seed=3)


def test_interrupted_run_is_taken_up_with_its_answers(tmp_path):
    folder = RunFolder(tmp_path / "run", CONFIG)
    answers = [Critique(f"case-{i}", "lexicon", "Line one.\nLine “two”.") for i in range(3)]
    for answer in answers:
        folder.add_critique(answer)
    with (tmp_path / "run/critiques.jsonl").open("a") as file:
        file.write('{"case_id": "case-3", "crit')  # killed in the middle of a line
    again = RunFolder(tmp_path / "run", CONFIG)
    assert list(again.known_critiques().values()) == answers
    again.add_critique(Critique("case-3", "lexicon", "Anew."))
    assert list(RunFolder(tmp_path / "run", CONFIG).known_critiques()) == [
        (f"case-{i}", 0) for i in range(4)
    ]


def test_folder_of_other_settings_is_refused(tmp_path):
    RunFolder(tmp_path, CONFIG)
    with pytest.raises(ConfigError, match=r"holds another run, unfinished.*give --out a new folder"):
        RunFolder(tmp_path, Config(seed=4))


def test_finished_run_is_not_overwritten(tmp_path):
    RunFolder(tmp_path, CONFIG)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds another run"):
        RunFolder(tmp_path, CONFIG)


def test_strangers_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="is not empty"):
        RunFolder(tmp_path, CONFIG)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file; give --out a folder"):
        RunFolder(tmp_path / "file", CONFIG)


def test_settings_are_there_from_the_start(tmp_path):
    RunFolder(tmp_path / "run", CONFIG)
    settings = json.loads((tmp_path / "run/config.json").read_text())
    assert settings["seed"] == 3
    assert "grey square" in settings["description"]
