import io
import json
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import vendor_javascript


@pytest.mark.parametrize(
    "inner", ["../../../../../../out.js", "../../../../../../../../out.js", "a/../../../../../../../out.js"]
)
def test_a_member_that_leads_out_of_the_folder_is_refused(inner, tmp_path, monkeypatch):
    folder = vendor_javascript.FILES["mathjax"]
    names = [source + "good.js" * (source[-1] == "/") for source in folder]
    names.append("es5/output/chtml/fonts/woff-v2/" + inner)
    with tarfile.open(tmp_path / "mathjax.tgz", "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo("package/" + name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
    packed = SimpleNamespace(stdout=json.dumps([{"filename": "mathjax.tgz"}]))
    monkeypatch.setattr(vendor_javascript.subprocess, "run", lambda *a, **k: packed)
    target = tmp_path / "deep/er/vendor"
    with pytest.raises(tarfile.TarError, match="leads out of its folder"):
        vendor_javascript._fetch("mathjax", "3", tmp_path, target)
    assert not list(tmp_path.rglob("out.js"))
    assert (target / "mathjax/tex-chtml.js").read_bytes() == b"x"
