import gzip
import hashlib
import shutil

import numpy as np
import pytest

from lvlmva_lite.datasets import mnist
from lvlmva_lite.datasets.mnist import DATA_DIR, DataFileError, load_mnist

# MD5 sums of the uncompressed files of 1998, as published with the data set.
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@pytest.mark.parametrize("name", MD5)
def test_files_are_the_originals(name):
    content = gzip.decompress((DATA_DIR / f"{name}.gz").read_bytes())
    assert hashlib.md5(content).hexdigest() == MD5[name]


@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_equals_torchvisions_reader(split, prefix, tmp_path):
    from lvlmva_lite.torchvision_compat import import_torchvision

    import_torchvision()
    from torchvision.datasets.mnist import read_image_file, read_label_file

    images, labels = load_mnist(split)
    for kind, array, read in (
        ("images-idx3", images, read_image_file),
        ("labels-idx1", labels, read_label_file),
    ):
        raw = tmp_path / kind
        raw.write_bytes(gzip.decompress((DATA_DIR / f"{prefix}-{kind}-ubyte.gz").read_bytes()))
        np.testing.assert_array_equal(array, read(str(raw)).numpy())


def test_second_read_is_cached_and_read_only():
    first, second = load_mnist("test")[0], load_mnist("test")[0]
    assert first is second
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1


def test_damaged_file_is_named_with_its_mend(tmp_path):
    folder = tmp_path / "mnist"
    shutil.copytree(DATA_DIR, folder)
    file = folder / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataFileError, match=r"t10k-labels-idx1-ubyte\.gz is damaged.*reinstall"):
        load_mnist("test", folder)


def test_missing_file_is_named_with_its_mend(tmp_path):
    with pytest.raises(DataFileError, match=r"t10k-images-idx3-ubyte\.gz.*reinstall"):
        load_mnist("test", tmp_path)


def test_unknown_split():
    with pytest.raises(ValueError, match="'validation'"):
        load_mnist("validation")


def test_checksums_name_every_shipped_archive():
    assert set(mnist.SHA256) == {file.name for file in DATA_DIR.glob("*.gz")}
