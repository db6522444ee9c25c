import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info

from lvlmva_lite.config import Config, ConfigError
from lvlmva_lite.threads import as_configured, threads


def numbers():
    return {torch.get_num_threads()} | {library["num_threads"] for library in threadpool_info()}


@pytest.fixture
def three():
    """A machine on which three threads are usual, whatever this one is."""
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    with threadpool_limits(3):
        torch.set_num_threads(3)
        yield
        torch.set_num_threads(before)


def test_pins_and_gives_back(three):
    with threads():
        assert numbers() == {1}
        with threads():
            assert numbers() == {1}
        assert numbers() == {1}
        with threads(2):
            assert numbers() == {2}
            with threads():  # the number in force
                assert numbers() == {2}
        assert numbers() == {1}
    assert numbers() == {3}


def test_gives_back_after_an_error(three):
    with pytest.raises(KeyError), threads(2):
        raise KeyError
    assert numbers() == {3}


def test_works_in_other_threads_and_leaves_them_as_they_were(three):
    together = threading.Barrier(4, timeout=30)

    def work(_):
        with threads():
            together.wait()  # all are inside
            inside = numbers()
            together.wait()
            return inside

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(16))) == [{1}] * 16
    assert numbers() == {3}


def test_two_numbers_at_once_are_refused():
    inside, done = threading.Event(), threading.Event()

    def hold():
        with threads(2):
            inside.set()
            done.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    inside.wait(30)
    try:
        with threads():  # the number in force is welcome
            assert numbers() == {2}
        with pytest.raises(RuntimeError, match="at work with 2"), threads(1):
            pass
    finally:
        done.set()
        other.join()


@pytest.mark.parametrize("number", [0, -1, 257, 1.0, True])
def test_a_number_that_cannot_be_is_refused(number):
    with pytest.raises(ConfigError, match="threads must"):
        Config(threads=number)
    if number < 1:
        with pytest.raises(ValueError, match="at least 1"), threads(number):
            pass


def test_a_config_sets_the_number(three):
    seen = []
    as_configured(lambda config: seen.append(numbers()))(Config(threads=2))
    assert seen == [{2}]


RUN = textwrap.dedent(
    """
    import hashlib, json, sys
    from concurrent.futures import ThreadPoolExecutor
    import torch
    from lvlmva_lite import pipeline, tasks
    from lvlmva_lite.datasets import knee_phantom, load_decoy_mnist, skin_phantom
    from lvlmva_lite.models import fit, predict_proba

    torch.set_num_threads(int(sys.argv[1]))
    SPLIT = {"knee": knee_phantom, "skin": skin_phantom}

    def few(task, split, *, seed, clean=False):
        if task.name == "decoy-mnist":
            whole = load_decoy_mnist(split, shade="none" if clean else None, random_state=seed)
            return whole.subset(torch.arange(800))
        rate = (0.0, 0.0) if clean else None
        return SPLIT[task.name](split, n=96, marker_rate=rate, random_state=seed)

    for name in tasks.names():
        tasks.get(name).load = few
    TINY = {"threads": int(sys.argv[3]) if len(sys.argv) > 3 else 1, "train_epochs": 2, "n_align": 16, "n_baselines": 4, "n_explained": 4, "align_epochs": 1,
            "batch_size": 32}

    def results(dataset):
        task = tasks.get(dataset)()
        ready = pipeline.prepare(task, task.config(**TINY))
        aligned = ready.aligned_by_verdicts(ready.verdicts())
        return {
            "pixels": ready.train.images,
            "before": predict_proba(ready.model, ready.test.images),
            "maps": ready.alignment_set.attributions,
            "segments": ready.alignment_set.segments.labels,
            "after": predict_proba(aligned, ready.test.images),
        }

    if __name__ == "__main__":
        told = {}
        for dataset in ("decoy-mnist", "knee", "skin"):
            found = results(dataset)
            if len(sys.argv) > 2:
                torch.save(found, sys.argv[2] + dataset)
            for name, tensor in found.items():
                told[dataset + " " + name] = hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
        print(json.dumps(told))
    """
)


def run(n_threads, *more, **environment):
    """The results of ``RUN`` in a process of its own."""
    clean = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    # Threads that wait sleep: on a machine with fewer processors they would be in the way.
    asleep = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "OMP_NUM_THREADS": str(n_threads)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(n_threads), *more],
        env=clean | asleep | environment,
        capture_output=True, text=True, check=True, timeout=500,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


OLDER_PROCESSOR = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Nehalem",
}
"""What makes PyTorch, oneDNN, MKL and OpenBLAS compute without AVX."""


THREADS_TOLERANCE = {"before": 1e-3, "after": 0.05}
"""Largest difference in a probability where two threads compute in place of one."""

TOLERANCE = {"grey levels": 1, "pixels": 10, "before": 1e-3, "after": 0.05}
"""Largest difference of a pixel, how many pixels may differ, and the largest difference in a probability
after two epochs of training and after alignment, on few images."""


def test_the_book_states_the_tolerance_that_is_tested():
    page = (Path(__file__).parent.parent / "book/how_to_run.md").read_text("utf-8")
    stated = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", page, re.MULTILINE))
    assert float(stated["probabilities after two epochs on few images"]) == TOLERANCE["before"]
    assert float(stated["probabilities after their alignment"]) == TOLERANCE["after"]
    assert float(stated["probabilities after two epochs, two threads"]) == THREADS_TOLERANCE["before"]
    assert float(stated["probabilities after their alignment, two threads"]) == THREADS_TOLERANCE["after"]
    words = {1: "one", 10: "ten"}
    levels, pixels = (words[TOLERANCE[name]] for name in ("grey levels", "pixels"))
    assert stated["pixels of phantoms"].startswith(f"{levels} grey level of 255, in {pixels} pixels")


@pytest.mark.slow
def test_results_depend_on_no_thread_or_process_and_hardly_on_the_processor(tmp_path, capsys):
    """Bit for bit on another number of threads, within what the book states without AVX."""
    here, there = str(tmp_path / "here "), str(tmp_path / "there ")
    pair = str(tmp_path / "pair ")
    with ThreadPoolExecutor(4) as pool:  # processes side by side
        one, three, _, _ = pool.map(
            lambda how: run(*how[0], **how[1]),
            (((1, here), {}), ((3,), {}), ((1, there), OLDER_PROCESSOR), ((1, pair, "2"), {})),
        )
    assert len(one) == 15
    assert three == one
    shown = {}
    for dataset in ("decoy-mnist", "knee", "skin"):
        ours, theirs = torch.load(here + dataset), torch.load(there + dataset)
        grey = ((ours["pixels"] - theirs["pixels"]).abs() * 255).round()
        shown[dataset] = {
            "grey levels": int(grey.max()),
            "pixels": int((grey > 0).sum()),
            "before": (ours["before"] - theirs["before"]).abs().max().item(),
            "after": (ours["after"] - theirs["after"]).abs().max().item(),
        }
        two = torch.load(pair + dataset)
        moved = {when: (ours[when] - two[when]).abs().max().item() for when in THREADS_TOLERANCE}
        assert all(moved[when] <= most for when, most in THREADS_TOLERANCE.items()), moved
        assert torch.equal(ours["pixels"], two["pixels"])
    with capsys.disabled():
        print("\nlargest differences without AVX, at most", TOLERANCE)
        for dataset, found in shown.items():
            print(f"{dataset:<13}", {k: float(f"{v:.1g}") for k, v in found.items()})
    assert any(found["before"] > 0 for found in shown.values())  # the settings do something
    for found in shown.values():
        for when, most in TOLERANCE.items():
            assert found[when] <= most


@pytest.mark.parametrize("how", ["late_import('sklearn.svm')", "import sklearn.svm"])
def test_libraries_that_are_loaded_within_are_pinned_too_and_given_back(how):
    code = textwrap.dedent(f"""\
        from threadpoolctl import threadpool_info
        from lvlmva_lite.threads import late_import, threads
        numbers = lambda: {{library["filepath"]: library["num_threads"] for library in threadpool_info()}}
        before = numbers()
        with threads(2):
            {how}
            with threads():
                inside = numbers()
        assert set(inside) > set(before), inside
        assert set(inside.values()) == {{2}}, inside
        assert before.items() <= numbers().items(), numbers()
        assert [n for name, n in numbers().items() if "scikit_learn" in name] in ([], [3]), numbers()
    """)
    three = {"OMP_NUM_THREADS": "3"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=os.environ | three, check=True)
