"""Time of PPEPS-WGM on many maps, against scikit-learn fitting one mixture per map.

``python benchmarks/segmentation.py [--maps N] [--segments J]`` explains N
DecoyMNIST images, segments them both ways in one run, and prints the ratio of
the times and the mean log-likelihood per unit of mass, each side measured by
its own mixture.  scikit-learn has no sample weights, so that it gets 1000
points drawn from each map.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from sklearn.mixture import GaussianMixture

from lvlmva_lite import pipeline
from lvlmva_lite.segmentation import positive_effect, ppeps_wgm
from lvlmva_lite.tasks import DecoyMNIST


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--maps", type=int, default=200)
    parser.add_argument("--segments", type=int, default=6)
    options = parser.parse_args()

    task = DecoyMNIST()
    maps = pipeline.prepare(task, task.config(n_align=options.maps)).alignment_set.attributions
    n, height, width = maps.shape

    start = time.perf_counter()
    ours = ppeps_wgm(maps, options.segments).log_likelihood.mean().item() / (height * width)
    our_seconds = time.perf_counter() - start

    rng = np.random.default_rng(0)
    positions = torch.cartesian_prod(
        (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    ).numpy()
    theirs = 0.0
    start = time.perf_counter()
    for mass in positive_effect(maps).flatten(1).numpy():
        points = positions[rng.choice(len(mass), 1000, p=mass)]
        mixture = GaussianMixture(options.segments, reg_covar=1 / 12 / height**2, random_state=0)
        theirs += mass @ mixture.fit(points).score_samples(positions) / n
    their_seconds = time.perf_counter() - start

    print(f"{n} maps of {height} x {width}, J = {options.segments}, {torch.get_num_threads()} threads")
    print(f"time, scikit-learn / ours: {their_seconds / our_seconds:.1f}")
    print(f"log-likelihood per unit of mass: ours {ours:.4f}, scikit-learn {theirs:.4f}")


if __name__ == "__main__":
    main()
