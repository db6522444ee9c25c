import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvlmva_lite.files import append_line, inside, to_json, write_whole
from lvlmva_lite.fingerprint import fingerprint

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
