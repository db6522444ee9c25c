import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvlmva_lite.critic import Critique
from lvlmva_lite.files import append_line, inside, to_json, write_whole
from lvlmva_lite.fingerprint import fingerprint
from lvlmva_lite.run_folder import RunFolder
from lvlmva_lite.tasks import DecoyMNIST

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _refuse(word):
    raise AssertionError(word)


@given(VALUES)
def test_json_is_strict_and_changes_nothing_but_what_is_not_finite(value):
    def plain(item):
        if isinstance(item, float) and not math.isfinite(item):
            return None
        if isinstance(item, dict):
            return {key: plain(inner) for key, inner in item.items()}
        return [plain(inner) for inner in item] if isinstance(item, list) else item

    assert json.loads(to_json(value), parse_constant=_refuse) == plain(value)


@given(
    st.lists(st.sampled_from(["..", ".", "a", "b.png", "", "C:", "\\", "x\\.."]), min_size=1).map("/".join)
)
def test_a_name_that_is_let_in_stays_inside(name):
    root = Path("/data/root")
    try:
        path = inside(root, name)
    except ValueError:
        return
    assert Path(*path.parts[:3]) == root
    assert ".." not in path.parts


def test_a_line_never_merges_with_one_cut_short(tmp_path):
    (tmp_path / "f").write_text("whole\ncut sho")
    append_line(tmp_path / "f", "next")
    append_line(tmp_path / "f", "last")
    assert (tmp_path / "f").read_text().splitlines() == ["whole", "cut sho", "next", "last"]


def synced(monkeypatch):
    """What each call of ``os.fsync`` puts on disk: the content of a file, None for a folder."""
    seen = []

    def fsync(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        seen.append(path.read_text() if path.is_file() else None)

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs the names of open files")
def test_what_is_said_to_be_on_disk_was_synced(tmp_path, monkeypatch):
    """The whole content, and then the folder that holds the name."""
    seen = synced(monkeypatch)
    write_whole(tmp_path / "f", "new")
    assert seen == ["new", None]
    append_line(tmp_path / "g", "one")
    append_line(tmp_path / "g", "two")
    assert seen[2:] == ["one\n", None, "one\ntwo\n"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs the names of open files")
def test_an_answer_of_a_run_is_synced(tmp_path, monkeypatch):
    with RunFolder(tmp_path / "run", DecoyMNIST(), DecoyMNIST().config()) as run:
        seen = synced(monkeypatch)
        run.add_critique(Critique("decoy-1", "a critic", "Segment A is spurious."))
        assert (tmp_path / "run/critiques.jsonl").read_text() in seen


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    write_whole(tmp_path / "f", "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "f", "half \ud800")
    assert (tmp_path / "f").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["f"]


@given(VALUES, VALUES)
def test_a_fingerprint_is_equal_where_the_values_are(one, other):
    assert (fingerprint(one) == fingerprint(other)) == (repr(_sorted(one)) == repr(_sorted(other)))


def _sorted(value):
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def test_what_has_no_content_has_no_fingerprint(tmp_path):
    with (tmp_path / "f").open("w") as file, pytest.raises(TypeError, match="cannot tell"):
        fingerprint(file)
