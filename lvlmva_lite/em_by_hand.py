"""One step of expectation-maximisation as a reader would write it, and with the usual parts left out."""

from __future__ import annotations

import numpy as np


def em_step(
    z: np.ndarray, p: np.ndarray, shares: np.ndarray, means: np.ndarray, covariances: np.ndarray,
    floor: np.ndarray, *, weighted: bool = True, floored: bool = True, fresh: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """One step of weighted expectation-maximisation: (shares, means, covariances) after it.

    Parameters
    ----------
    z : (P, D) positions
    p : (P,) masses, of sum 1
    shares, means, covariances : (J,), (J, D), (J, D, D)
    floor : (D, D), added to each covariance
    weighted, floored, fresh : False leaves out the masses, the floor, or takes the old means in the covariances
    """
    if not weighted:
        p = np.full(len(p), 1 / len(p))
    apart = z[:, None] - means
    distance = np.einsum("pjd,jde,pje->pj", apart, np.linalg.inv(covariances), apart)
    joint = shares * np.exp(-distance / 2) / np.sqrt(np.linalg.det(covariances))
    mass = p[:, None] * joint / joint.sum(1, keepdims=True)
    new_shares = mass.sum(0)
    new_means = mass.T @ z / new_shares[:, None]
    apart = z[:, None] - (new_means if fresh else means)
    new = np.einsum("pj,pjd,pje->jde", mass, apart, apart) / new_shares[:, None, None]
    return new_shares, new_means, new + floor * floored
