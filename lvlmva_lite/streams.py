"""Random numbers with a name: draws for two purposes never come from one stream.

``torch.Generator().manual_seed(s)`` gives everybody who seeds it with ``s`` the same numbers:
references drawn so were the first training batch, and the alignment repeated the order of the
training.  ``numpy.random.default_rng([s, 0])`` even equals ``default_rng(s)``.  So every
draw but three derives its stream from the seed *and* from what it is for.  The three, the
oldest, are the data (in ``datasets``), the initial weights and the order of training batches;
they come from the bare seed.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def stream(seed: int, name: str) -> torch.Generator:
    """PyTorch's generator for the purpose ``name``, on the CPU.

    Parameters
    ----------
    seed : int >= 0
    name : what the numbers are for, such as "references"

    Raises
    ------
    ValueError : ``seed`` is negative
    """
    return torch.Generator().manual_seed(derived_seed(seed, name))


def numpy_stream(seed: int, name: str) -> np.random.Generator:
    """NumPy's generator for the purpose ``name``; parameters as for :func:`stream`."""
    return np.random.default_rng(_sequence(seed, name))


def derived_seed(seed: int, name: str) -> int:
    """An int, 0 .. 2**32 - 1, for what takes one as its ``random_state``; parameters as for :func:`stream`.

    PyTorch's Mersenne Twister on the CPU reads no more than these 32 bits of a seed.
    """
    return int(_sequence(seed, name).generate_state(1)[0])


def _sequence(seed: int, name: str) -> np.random.SeedSequence:
    if seed < 0:
        raise ValueError(f"a seed must not be negative, got {seed}")
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.SeedSequence(seed, spawn_key=np.frombuffer(digest[:16], "<u4").tolist())
