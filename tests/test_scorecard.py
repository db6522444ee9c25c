"""The scorecard page, and the checks of the book build that guard it."""

import re
from pathlib import Path

import pytest

from lvlmva_lite.experiments.claims import load_claims
from lvlmva_lite.experiments.import_closure import code_ids
from lvlmva_lite.experiments.run_origin import origin_of
from lvlmva_lite.experiments.scorecard import code_since, recorded_results, scorecard, shown
from lvlmva_lite.experiments.sweep_folder import Job

ROOT = Path(__file__).resolve().parent.parent
PAGE = "{{ profile }}|{{ counts }}|{{ data }}|{{ claims }}|{{ recorded }}"
CLAIMS = """
- id: E1-up
  statement: It rises by a_b and *more*.
  source: paper E1, Figure 6
  chapter: 00_x
  check: after >= 0.95 and abs(before) < after
  status: reproduced
- id: E2-phantom
  statement: It falls.
  source: paper E2
  chapter: 01_y
  check: drop > 10
  status: not reproduced
  note: It fell by less.
  data: knee phantom
- id: E2-real
  statement: It falls on radiographs.
  source: paper E2
  chapter: 01_y
  check: other > 1
  status: not testable here
  note: We have none.
  data: real knees
- id: ours-same
  statement: It is the same.
  source: ours
  chapter: 01_y
  check: same and drop < 10
  status: reproduced
"""
VALUES = {"00_x": {"before": -0.123456, "after": 0.95023}, "01_y": {"drop": 9.8765, "same": True}}


@pytest.fixture
def empty(tmp_path):
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def filled(results, claims=CLAIMS, values=VALUES, page=PAGE):
    return scorecard(page, load_claims(claims), values, "quick", results)


def row(page, id):
    (found,) = [
        row for row in re.findall(r"^:::\{dropdown\}.*?^:::$", page, re.M | re.S) if f"`{id}`" in row
    ]
    return found


def test_counts_are_those_of_the_claims(empty):
    page = filled(empty)
    assert "Of 4 claims: 2 reproduced, 1 not reproduced, 1 not testable here." in page
    counts = page.split("|")[1]
    e2 = re.search(r"\* - \[E2.*\n  - (.*)", counts)[1]
    assert "1 not reproduced`" in e2
    assert "1 not testable here`" in e2
    assert " 1 reproduced`" not in e2
    assert re.search(r"\* - E3.*\n  - no claim yet", counts)
    assert page.startswith("quick|")


def test_numbers_shown_are_those_recorded(empty):
    page = filled(empty)
    assert "`after = 0.95`" in page
    assert "`before = -0.123`" in page
    assert "`drop = 9.88`" in row(page, "E2-phantom")
    assert "`same = True`" in row(page, "ours-same")
    moved = {**VALUES, "01_y": {"drop": 3.0, "same": True}}
    assert "`drop = 3`" in row(filled(empty, values=moved), "ours-same")


def test_a_claim_that_failed_shows_its_note_and_a_symbol(empty):
    failed = row(filled(empty), "E2-phantom")
    assert "✗ not reproduced" in failed
    assert "**Note:** It fell by less." in failed
    assert "`drop > 10`" in failed
    assert "{doc}`chapter 1 <../notebooks/01_y>`" in failed
    assert "✓ reproduced" in row(filled(empty), "E1-up")


def test_phantoms_and_real_images_stand_in_rows_of_their_own(empty):
    page = filled(empty)
    assert "✗ not reproduced` knee phantom: It falls." in row(page, "E2-phantom")
    assert "` real knees: It falls on radiographs." in row(page, "E2-real")
    assert "Not measured." in row(page, "E2-real")
    data = page.split("|")[2]
    assert "**knee phantom**" in data
    assert "**skin phantom**" not in data


def test_text_of_a_claim_is_no_markup(empty):
    assert r"It rises by a\_b and \*more\*." in row(filled(empty), "E1-up")


def test_a_number_that_was_not_recorded_is_an_error(empty):
    with pytest.raises(ValueError, match="claim E1-up names 'after', which 00_x did not record"):
        filled(empty, values={**VALUES, "00_x": {"before": 1.0}})


@pytest.mark.parametrize("page", [PAGE.replace("{{ counts }}", ""), PAGE + "{{ counts }}"])
def test_a_page_without_a_place_for_each_part_is_refused(empty, page):
    with pytest.raises(ValueError, match=r"must hold {{ counts }} once"):
        filled(empty, page=page)


@pytest.mark.parametrize(
    ("check", "value", "text"),
    [
        ("x >= 0.95", 0.9496, "0.9496"),  # 0.95 would seem to hold
        ("x >= 0.95", 0.94996, "0.94996"),
        ("x < 2", 1.23456, "1.23"),
        ("x > 0", 123456.7, "123457"),
        ("x > 0", 1.5e-7, "1.5e-07"),
        ("1 / (x - 0.95) > 0", 0.95004, "0.95004"),  # no number at 0.95
        ("x > 0", 12345678, "12345678"),
        ("x == 'words'", "words", "'words'"),
    ],
)
def test_digits_are_few_but_never_contradict_the_check(check, value, text):
    claim = load_claims(CLAIMS.replace("drop > 10", check))[1]
    assert shown(claim, {"x": value, "unused": 1.0}) == {"x": text}


def write_table(folder, name, **origin):
    (folder / f"{name}.csv").write_text("seed,value\n0,1.0\n0,2.0\n1,1.5\n")
    (folder / f"{name}.yml").write_text("".join(f"{key}: {value}\n" for key, value in origin.items()))


def test_recorded_results_say_where_they_come_from(empty):
    assert recorded_results(empty) == "No table has been recorded yet."
    origin = {
        "machine": "2 cores",
        "date": "2026-01-02",
        "commit": "abc1234",
        "command": "python make.py t",
    }
    write_table(empty, "t", **origin)
    table = recorded_results(empty)
    assert all(value in table for value in origin.values())
    assert "`t`: 2 seeds, code unknown" in table
    write_table(empty, "u", machine="2 cores", date="2026-01-02", command="python make.py u")
    with pytest.raises(ValueError, match="the recorded table u does not say its commit"):
        recorded_results(empty)
    (empty / "u.yml").unlink()
    with pytest.raises(ValueError, match="the recorded table u does not say its machine, date"):
        recorded_results(empty)


def test_a_recorded_table_says_whether_its_code_has_changed(empty, monkeypatch):
    here = origin_of(Job("experiment", "decoy_loop", {}, {}, ""))["code"]
    assert code_since("decoy_loop", {"code": here}) == "the same"
    assert code_since("decoy_loop", {"code": "0" * 16}) == "changed since"
    assert code_since("decoy_loop", {}).startswith("unknown")
    modules = code_ids("lvlmva_lite.experiments.decoy_arms")
    assert code_since("decoy_loop", {"modules": modules}) == "the same"
    # One that is new since is not what the numbers were made by; one that is gone is.
    assert {"alignment", "critic.lexicon", "data in critic"} <= {*modules}
    fewer = {name: id for name, id in modules.items() if name != "alignment"}
    assert code_since("decoy_loop", {"modules": fewer}) == "the same"
    other = modules | {"critic.lexicon": "0" * 8, "gone": "1" * 8}
    assert code_since("decoy_loop", {"modules": other}) == "changed since: `critic.lexicon`, `gone`"
    again = {"commit": "abc", "modules": modules, "seeds": "0", "largest_difference": 0.0}
    told = code_since("decoy_loop", {"modules": other, "again": again})
    assert told == "changed since, and run again at `abc`, seed 0: the same numbers"
    again |= {"seeds": "0, 1", "largest_difference": 0.0123}
    told = code_since("decoy_loop", {"modules": other, "again": again})
    assert told.endswith("seeds 0, 1: numbers differ by at most 0.012")
    again |= {"modules": other}  # the code has changed since that, too
    assert code_since("decoy_loop", {"modules": other, "again": again}).startswith("changed since: ")
    assert code_since("decoy_loop", {"modules": modules, "again": again}) == "the same"
    # A table older than its list of modules, or than the check.
    again |= {"modules": modules}
    told = "run again at `abc`, seeds 0, 1: numbers differ by at most 0.012"
    assert code_since("decoy_loop", {"code": "0" * 16, "again": again}) == f"changed since, and {told}"
    assert code_since("decoy_loop", {"again": again}) == f"older than this check, and {told}"
    assert code_since("decoy_loop", {"code": here, "again": again}) == "the same"
    for none in (other, {}):
        origin = {"code": "0" * 16, "again": again | {"modules": none}}
        assert code_since("decoy_loop", origin) == "changed since"
    del again["modules"]  # code has changed between the run and its table
    assert code_since("decoy_loop", {"again": again}).startswith("unknown")
    origin = {
        "machine": "2 cores",
        "date": "2026-01-02",
        "commit": "abc1234",
        "command": "make",
        "code": "0",
    }
    write_table(empty, "decoy_loop", **origin)
    assert "**Code since:** changed since." in recorded_results(empty)


def test_the_page_that_ships_has_all_places(empty):
    page = filled(empty, page=(ROOT / "book/scorecard.md").read_text())
    assert "{{" not in page
    assert "(claims-ours)=" in page


@pytest.fixture
def build_book(monkeypatch):
    for name in ("jupytext", "nbformat", "pybtex"):
        pytest.importorskip(name)
    monkeypatch.syspath_prepend(ROOT / "tools")
    import build_book

    return build_book


def test_the_build_tells_every_claim_that_cannot_stand(build_book):
    claims = load_claims(CLAIMS)
    assert build_book.false_claims(claims, VALUES) == []
    lines = build_book.false_claims(claims, {"00_x": {"before": 0.1}, "01_y": {"drop": 11.0, "same": True}})
    assert [line.split(" ")[:2] for line in lines] == [
        ["claim", "E1-up"],
        ["E2-phantom", "is"],
        ["ours-same", "is"],
    ]
    assert "names 'after', which 00_x did not record" in lines[0]
    assert build_book.without_chapter(claims, {"00_x", "01_y"}) == []
    assert build_book.without_chapter(claims[:2], {"00_x"}) == [
        "E2-phantom is about 01_y, which is not in _toc.yml"
    ]


def test_a_claim_without_a_chapter_stops_the_build_before_anything_runs(build_book, tmp_path, monkeypatch):
    (tmp_path / "book").mkdir()
    (tmp_path / "_toc.yml").write_text("root: book/intro\n")
    monkeypatch.setattr(build_book, "vendor", lambda root: False)
    monkeypatch.setattr(build_book, "configuration", lambda root, vendored: {})
    monkeypatch.setattr(build_book, "load_claims", lambda: load_claims(CLAIMS))
    with pytest.raises(SystemExit, match=r"E1-up is about 00_x, which is not in _toc\.yml"):
        build_book.build(tmp_path, "quick", 1)
