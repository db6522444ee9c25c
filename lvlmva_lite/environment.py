"""On what something was computed: what numbers may depend on beside the settings."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "captum")


def environment(threads: int = 1) -> dict[str, Any]:
    """Threads, processor and versions, as plain values.

    Parameters
    ----------
    threads : that computed, see :func:`lvlmva_lite.threads.threads`

    Returns
    -------
    dict
        "threads"; "processor", its model's name; "cpu_capability", the instructions that PyTorch
        uses of it, such as "AVX2"; "python" and each of ``LIBRARIES``: versions
    """
    import torch  # late: the versions of the libraries are known without it

    return {
        "threads": threads,
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, names), platform.processor() or platform.machine())
