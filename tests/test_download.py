import os
import sys

import pytest

from lvlmva_lite.datasets import load_skin
from lvlmva_lite.datasets.download import download_isic
from lvlmva_lite.datasets.image_files import ImageDataError

FAKE = f"""#!{sys.executable}
import csv, pathlib, sys
from PIL import Image
pathlib.Path(r"{{log}}").write_text("\\n".join(sys.argv[1:]))
folder = pathlib.Path(sys.argv[-1])
folder.mkdir(parents=True, exist_ok=True)
rows = []
for i in range(60):
    Image.new("RGB", (20, 20), (200, 150, 4 * i)).save(folder / f"ISIC_{{{{i:07d}}}}.jpg")
    rows.append({{{{"isic_id": f"ISIC_{{{{i:07d}}}}", "diagnosis_1": ["Benign", "Malignant"][i % 2]}}}})
with (folder / "metadata.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, ["isic_id", "diagnosis_1"])
    writer.writeheader()
    writer.writerows(rows)
sys.exit({{status}})
"""


def put_on_path(tmp_path, monkeypatch, status):
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "isic"
    command.write_text(FAKE.format(log=tmp_path / "log", status=status))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with a #! line")
def test_calls_the_official_command_and_its_folder_loads(tmp_path, monkeypatch):
    put_on_path(tmp_path, monkeypatch, 0)
    folder = download_isic(
        tmp_path / "new" / "isic", collections=[70, 61], search="sex:male AND age_approx:50"
    )
    assert (tmp_path / "log").read_text().split("\n") == [
        "image", "download", "--limit", "0", "--collections", "70,61",
        "--search", "sex:male AND age_approx:50", str(tmp_path / "new" / "isic"),
    ]  # fmt: skip
    assert len(load_skin(folder, "train", size=16, unannotated="clean")) > 20


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with a #! line")
def test_a_failure_is_told(tmp_path, monkeypatch):
    put_on_path(tmp_path, monkeypatch, 3)
    with pytest.raises(ImageDataError, match=r"isic image download --limit 5 .*ended with status 3"):
        download_isic(tmp_path / "isic", limit=5)


def test_without_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ImageDataError, match=r"pip install 'lvlmva-lite\[isic\]'"):
        download_isic(tmp_path / "isic", limit=5)


def test_the_whole_archive_is_not_fetched_by_accident(tmp_path):
    with pytest.raises(ValueError, match="the whole ISIC Archive"):
        download_isic(tmp_path)
    with pytest.raises(ValueError, match="limit must be 0"):
        download_isic(tmp_path, limit=-1)
