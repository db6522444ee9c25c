"""Time of PPEPS-WGM against scikit-learn, pomegranate and plain expectation-maximisation in numpy.

``python benchmarks/segmentation.py [--maps N]`` explains N images of DecoyMNIST and segments them.
scikit-learn has no sample weights, so that it gets 1000 points drawn from each map; pomegranate, which has,
takes part where it is installed.  Likelihoods are nats per unit of mass, of each side's own mixture.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import resource
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture
from timing import compare, scaling, write
from torch import Tensor

from lvlmva_lite import mixture, pipeline
from lvlmva_lite.segmentation import positive_effect, ppeps_wgm
from lvlmva_lite.streams import stream
from lvlmva_lite.tasks import DecoyMNIST

PEERS = 10
"""Maps that a peer gets, which takes longer; its time is scaled up."""


def by_scikit_learn(maps: Tensor, n_segments: int) -> float:
    """Mean log-likelihood per unit of mass."""
    rng = np.random.default_rng(0)
    side = maps.shape[1]
    found = []
    for mass in positive_effect(maps).flatten(1).numpy():
        points = centres(side)[rng.choice(len(mass), 1000, p=mass)]
        fitted = GaussianMixture(n_segments, reg_covar=1 / 12 / side**2, random_state=0).fit(points)
        found.append(mass @ fitted.score_samples(centres(side)))
    return float(np.mean(found))


def by_pomegranate(maps: Tensor, n_segments: int) -> float:
    """Mean log-likelihood per unit of mass; its mixtures take the masses as weights."""
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    points, found = torch.from_numpy(centres(maps.shape[1])), []
    for mass in positive_effect(maps).flatten(1):
        there = mass > 0
        fitted = GeneralMixtureModel([Normal() for _ in range(n_segments)], random_state=0)
        fitted.fit(points[there], sample_weight=mass[there, None])
        found.append((mass[there] * fitted.log_probability(points[there])).sum().item())
    return float(np.mean(found))


def by_hand(maps: Tensor, n_segments: int, tol: float = 5e-5) -> float:
    """Plain expectation-maximisation in numpy, from our starts to our stop: mean log-likelihood."""
    side = maps.shape[1]
    found = []
    for mass in positive_effect(maps).flatten(1).numpy():
        # The largest first: a start depends on the order of the pixels.
        there = torch.from_numpy(mass).topk(int((mass > 0).sum())).indices.numpy()
        z, p = centres(side)[there], mass[there]
        draws_of = torch.from_numpy(z.T.copy())[None], torch.from_numpy(p)[None]
        shares, means = (part[0].numpy() for part in mixture.start(*draws_of, n_segments, 0))
        floor = np.eye(2) / 12 / side**2
        covariances = np.repeat(
            (np.cov(z.T, aweights=p, bias=True) / n_segments + floor)[None], n_segments, 0
        )
        while True:
            d = z[:, None] - means
            squared = np.einsum("pjd,jde,pje->pj", d, np.linalg.inv(covariances), d)
            joint = np.log(shares / np.sqrt(np.linalg.det(covariances))) - np.log(2 * np.pi) - squared / 2
            density = logsumexp(joint, axis=1)
            r = np.exp(joint - density[:, None]) * p[:, None]
            before = shares, means
            shares = r.sum(0)
            means = r.T @ z / shares[:, None]
            d = z[:, None] - means
            covariances = np.einsum("pj,pjd,pje->jde", r, d, d) / shares[:, None, None] + floor
            if max(abs(shares - before[0]).max(), abs(means - before[1]).max()) <= tol:
                break
        found.append(p @ density)
    return float(np.mean(found))


def centres(side: int) -> NDArray[np.float64]:
    """(side^2, 2) in [0, 1]."""
    one = (np.arange(side) + 0.5) / side
    return np.stack(np.meshgrid(one, one, indexing="ij"), -1).reshape(-1, 2)


def ours(maps: Tensor, n_segments: int) -> float:
    """Mean log-likelihood per unit of mass."""
    return ppeps_wgm(maps, n_segments).log_likelihood.mean().item() / maps[0].numel()


def enlarged(maps: Tensor, side: int) -> Tensor:
    """The maps at another size, by bilinear interpolation."""
    return torch.nn.functional.interpolate(maps[:, None], (side, side), mode="bilinear")[:, 0]


def dense(n: int) -> Tensor:
    """Maps of 28 x 28 of smooth noise above nothing at nine pixels in ten, as no network here gives."""
    noise = torch.randn(n, 1, 36, 36, generator=stream(0, "dense maps"))
    smooth = torch.nn.functional.avg_pool2d(noise, 9, 1)[:, 0]
    return smooth - smooth.flatten(1).quantile(1 - 700 / 784, 1)[:, None, None]


def megabytes(maps: Tensor, n: int, returns: multiprocessing.Queue) -> None:
    """What a process needs more at its peak for n maps, beside these and the result."""
    some = maps.repeat(-(-n // len(maps)), 1, 1)[:n]
    ppeps_wgm(some[:2], 4)
    before = peak()
    segments = ppeps_wgm(some, 4)
    held = sum(getattr(segments, name).nbytes for name in ("labels", "shares", "means", "covariances"))
    returns.put((peak() - before) - held / 1e6)


def peak() -> float:
    """Of this process, in MB; on Linux without what it inherited from the one that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    )


def row(
    what: str,
    peer: str,
    maps: Tensor,
    n_segments: int,
    theirs: Callable[[Tensor, int], float],
    n_theirs: int,
) -> dict:
    """One comparison; both likelihoods are of the peer's maps."""
    some = maps[:n_theirs]
    return compare(
        what,
        peer,
        partial(ours, maps, n_segments),
        partial(theirs, some, n_segments),
        {
            "log-likelihood per unit of mass, higher is better": (
                ours(some, n_segments),
                theirs(some, n_segments),
            )
        },
        repeats=1 if n_theirs == 1 else 3,
        scale=len(maps) / n_theirs,
    )


def main() -> None:
    """Measure and write ``segmentation.json``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--maps", type=int, default=500)
    n = parser.parse_args().maps
    warnings.simplefilter("ignore")  # peers that do not converge say so for each map
    task = DecoyMNIST()
    maps = pipeline.prepare(task, task.config(n_align=n)).alignment_set.attributions

    learn = f"scikit-learn {version('scikit-learn')}, 1000 points drawn from each map"
    rows = [
        row(f"{n} maps of DecoyMNIST, 28 x 28, J = 4", learn, maps, 4, by_scikit_learn, PEERS),
        row("200 dense maps, 28 x 28, J = 4", learn, dense(200), 4, by_scikit_learn, PEERS),
        row(f"{n} maps of DecoyMNIST, 28 x 28, J = 4", "plain steps in numpy", maps, 4, by_hand, PEERS),
        row("5 maps, 224 x 224, J = 4", "plain steps in numpy", enlarged(maps[:5], 224), 4, by_hand, 1),
    ]
    if importlib.util.find_spec("pomegranate"):
        peer = f"pomegranate {version('pomegranate')}, the same weights"
        rows.append(row(f"{n} maps of DecoyMNIST, 28 x 28, J = 4", peer, maps, 4, by_pomegranate, PEERS))

    def work(of: Callable[[int], tuple[Tensor, int]]) -> Callable[[int], Callable[[], float]]:
        return lambda size: partial(ours, *of(size))

    many = maps.repeat(-(-10_000 // n), 1, 1)
    curves = [
        scaling("28 x 28, J = 4", "maps", (100, 1000, 10_000), work(lambda size: (many[:size], 4)), 1),
        scaling(
            "10 maps, J = 4",
            "pixels a side",
            (28, 56, 112, 224),
            work(lambda s: (enlarged(maps[:10], s), 4)),
        ),
        scaling("200 maps of 28 x 28", "segments J", (2, 4, 8, 16), work(lambda j: (maps[:200], j)), 1),
    ]

    memory = {}
    context = multiprocessing.get_context("spawn")
    for size in (100, 1000, 3000):
        returns = context.Queue()
        process = context.Process(target=megabytes, args=(maps, size, returns))
        process.start()
        memory[str(size)] = round(returns.get())
        process.join()
    print("MB beside maps and result, by number of maps:", memory)
    write("segmentation", rows, curves, megabytes_beside_maps_and_result=memory)


if __name__ == "__main__":
    main()
