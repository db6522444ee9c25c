"""What a release consists of, the workflows that make it, and the one place of the repository's address."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import release  # noqa: E402

import notebooks  # noqa: E402

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def addresses(text: str, address: str) -> int:
    return len(re.findall(rf"(?<![\w.-]){re.escape(address)}(?![\w-])", text))


def test_the_repository_stands_in_one_place():
    address, tag = notebooks.repository()
    place = address.partition("://")[2]
    owner, name = place.split("/")[1:]
    for file in tracked():
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        stamped = file.parent.name == "notebooks" and file.suffix in (".md", ".ipynb")
        if stamped:  # written from pyproject.toml by tools/notebooks.py, whose check compares them
            assert f"git+{address}@{tag}" in text, file
        elif file == ROOT / notebooks.CITATION:  # the same
            assert text == notebooks.cited(), "run python tools/notebooks.py"
        elif file != ROOT / "pyproject.toml":
            assert not addresses(text, place), f"{file} names the address too; take it from pyproject.toml"
            assert f"{owner.lower()}.github.io/{name}" not in text, file
    assert addresses((ROOT / "pyproject.toml").read_text(), place) == 1


def test_workflows_follow_githubs_schema():
    pytest.importorskip("check_jsonschema")
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*check, *map(str, WORKFLOWS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_citation_names_this_version_its_date_and_the_repository(tree):
    cff = tree / "CITATION.cff"
    cff.write_text("cff-version: 1.2.0\nversion: 0.9\ntitle: One\n")
    expected = {
        "cff-version": "1.2.0",
        "title": "One",
        "version": "1.2.0",
        "repository-code": "https://x.org/o/r",
    }
    assert yaml.safe_load(notebooks.cited(tree)) == expected, "the changelog gives 1.2.0 no date"
    changelog = tree / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace("today", "2026-12-24"))
    cff.write_text(notebooks.cited(tree))
    assert yaml.safe_load(cff.read_text()) == expected | {"date-released": "2026-12-24"}
    assert notebooks.cited(tree) == cff.read_text()


@pytest.mark.parametrize("spoiled", ["", "version", "repository-code"])
def test_the_citation_follows_the_schema_of_the_format(spoiled, tmp_path):
    pytest.importorskip("check_jsonschema")
    file = tmp_path / "CITATION.cff"
    file.write_text(
        (ROOT / "CITATION.cff").read_text().replace(f"\n{spoiled}:", "\nunheard-of:" if spoiled else "\n:")
    )
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format"]
    done = subprocess.run([*check, str(file)], capture_output=True, text=True)
    assert done.returncode == bool(spoiled), done.stdout + done.stderr


def test_the_schema_finds_a_fault(tmp_path):
    pytest.importorskip("check_jsonschema")
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on", "run-on"))
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    assert subprocess.run([*check, str(wrong)], capture_output=True).returncode == 1


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_pins_its_actions_limits_its_time_and_calls_targets_that_exist(file):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for job in yaml.safe_load(file.read_text())["jobs"].values():
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w./-]+@v\d+", step["uses"])
            for target in re.findall(r"make (\w+)", step.get("run", "")):
                assert target in targets
            for script in re.findall(r"bash (\S+)", step.get("run", "")):
                assert (ROOT / script).exists()


def test_workflows_test_deploy_and_release():
    steps = {
        file.stem: yaml.safe_load(file.read_text())["jobs"][job]["steps"]
        for file, job in zip(WORKFLOWS, ("test", "deploy", "release"), strict=True)
    }
    uses = {name: [step.get("uses", "").partition("@")[0] for step in some] for name, some in steps.items()}
    runs = {name: " ".join(step.get("run", "") for step in some) for name, some in steps.items()}
    assert "bash .ci/run" in runs["ci"]
    assert "actions/deploy-pages" in uses["pages"]
    assert "make book" in runs["pages"]
    for part in ("make test", "make release", "dist/*.whl", "dist/*.zip", "dist/*.pdf", "dist/notes.md"):
        assert part in runs["release"]


def test_the_changelog_knows_this_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    version = notebooks.repository()[1].removeprefix("v")
    assert release.changes(text, version).startswith("### ")
    named = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert named[0] == "Unreleased"
    newest = [tuple(map(int, one.split("."))) for one in named[1:]]
    assert newest == sorted(newest, reverse=True)


@pytest.mark.parametrize("text", ["# Changelog\n", "## [1.2.0]\n\n## [1.1.0]\n- a\n", "## [1.2.01]\n- a\n"])
def test_a_version_without_changes_is_refused(text):
    with pytest.raises(ValueError, match=r"no section ## \[1\.2\.0\], or an empty one"):
        release.changes(text, "1.2.0")


@pytest.fixture
def tree(tmp_path):
    package = tmp_path / "lvlmva_lite"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "1.2.0"\n')
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "lvlmva-lite"\nversion = "1.2.0"\n[project.urls]\nRepository = "https://x.org/o/r"\n'
    )
    (tmp_path / "CHANGELOG.md").write_text("## [1.2.0] - today\n\n- much\n\n## [1.1.0]\n\n- old\n")
    return tmp_path


def test_a_foreign_tag_and_what_is_not_built_are_named(tree):
    with pytest.raises(ValueError, match=r"the tag is v9, but lvlmva_lite/__init__\.py says v1\.2\.0"):
        release.assemble(tree, "v9", tree / "dist")
    with pytest.raises(ValueError, match=r"index\.html is missing: make book"):
        release.assemble(tree, "v1.2.0", tree / "dist")


def test_a_release_holds_wheel_book_pdf_and_notebooks(tree, monkeypatch):
    html = tree / "_build" / "html"
    html.mkdir(parents=True)
    (html / "index.html").write_text("book")
    (tree / "_build" / "book.pdf").write_bytes(b"%PDF")
    (tree / "notebooks").mkdir()
    (tree / "notebooks" / "00_a.ipynb").write_text("{}")
    called = []
    monkeypatch.setattr(release.subprocess, "run", lambda command, check: called.append(command))
    names = [file.name for file in release.assemble(tree, "v1.2.0", tree / "dist")]
    assert names == [
        "lvlmva-lite-v1.2.0-book.zip", "lvlmva-lite-v1.2.0-notebooks.zip", "lvlmva-lite-v1.2.0.pdf", "notes.md",
    ]  # fmt: skip
    assert "wheel" in called[0]
    assert called[0][-1] == str(tree)
    assert (tree / "dist" / "notes.md").read_text() == "- much\n"
    with zipfile.ZipFile(tree / "dist" / names[1]) as packed:
        assert "notebooks/00_a.ipynb" in packed.namelist()
