"""Weighted mixtures of Gaussians, many at once: what PPEPS-WGM is made of.

Every array keeps the points last, (n, J, P): what is summed over segments is then summed over whole rows,
and both halves of a step are matrix products with the monomials of the points, for a Gaussian's
logarithm is a quadratic form and its moments are weighted sums.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lvlmva_lite.streams import stream

SLACK = 1e-4
"""Nats per unit of mass that an extrapolation may lose; plain steps with a floor lose about as much."""

CALM = 1e-2
"""Steps are extrapolated where no mixture weight and no mean moved by more than this."""


def fit(
    points: Tensor,
    weights: Tensor,
    n_segments: int,
    floor: Tensor,
    *,
    middle: Tensor,
    random_state: int,
    max_iter: int,
    tol: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted maximum likelihood by expectation-maximisation, one mixture for each of n sets of points.

    Parameters
    ----------
    points : (n, D, P) float64
    weights : (n, P) float64, of sum 1 for each set; points of weight 0 pad
    n_segments : J
    floor : (D, D) float64, added to every covariance
    middle : (n, D, 1) float64, about which moments are taken: within the cloud, so that float64 loses little
    random_state, max_iter, tol : as in :func:`segmentation.ppeps_wgm`

    Returns
    -------
    shares (n, J), means (n, J, D) and covariances (n, J, D, D), float64, largest share first
    """
    shares, means = start(points, weights, n_segments, random_state)
    centred = points - middle
    offsets = points - (weights[:, None] * points).sum(2, keepdim=True)
    # The first step starts from the spread of the whole set.
    spread = (weights[:, None] * offsets) @ offsets.mT / n_segments + floor
    state = _packed(shares, means - middle.mT, spread[:, None].expand(-1, n_segments, -1, -1))
    state = _expectation_maximisation(monomials(centred), weights, state, floor, max_iter, tol)
    shares, means, covariances = _unpacked(state)
    by_share = shares.argsort(dim=1, descending=True, stable=True)
    take = torch.arange(len(points))[:, None]
    return shares[take, by_share], (means + middle.mT)[take, by_share], covariances[take, by_share]


def start(points: Tensor, weights: Tensor, n_segments: int, random_state: int) -> tuple[Tensor, Tensor]:
    """Starting shares (n, J) and means (n, J, D): weighted k-means++, then ten steps of Lloyd.

    Where a map has fewer pixels than segments, the surplus starts with share 0.
    """
    generator = stream(random_state, "mixture starts")
    draws = torch.rand(n_segments, generator=generator, dtype=torch.float64)
    sets = torch.arange(len(points))
    nearest = torch.full_like(weights, torch.inf)
    chance, chosen, found = weights, [], []
    for draw in draws:
        cumulative = chance.cumsum(1)
        pick = (cumulative <= draw * cumulative[:, -1:]).sum(1).clamp_max(points.shape[2] - 1)
        chosen.append(points[sets, :, pick])
        found.append(cumulative[:, -1] > 0)
        nearest = torch.minimum(nearest, _distances(points, chosen[-1][:, None])[:, 0])
        chance = weights * nearest.square()
    means, exists = torch.stack(chosen, 1), torch.stack(found, 1).double()
    each = torch.arange(n_segments)[:, None]
    for _ in range(10):
        assigned = _distances(points, means).argmin(1, keepdim=True)
        held = (assigned == each) * weights[:, None]
        total = held.sum(2, keepdim=True)
        means = torch.where(total > 0, held @ points.mT / total.clamp_min(1e-300), means)
    return exists / exists.sum(1, keepdim=True), means


def _distances(points: Tensor, means: Tensor) -> Tensor:
    """Euclidean distances (n, J, P), exactly 0 between equal positions."""
    squared = (points[:, None, 0] - means[..., 0, None]).square_()
    for axis in range(1, points.shape[1]):
        squared += (points[:, None, axis] - means[..., axis, None]).square_()
    return squared.sqrt_()


def monomials(offsets: Tensor) -> Tensor:
    """y^2, yx, x^2, y, x, 1 of offsets (n, 2, P), and so on for any (n, D, P)."""
    a, b = torch.triu_indices(offsets.shape[1], offsets.shape[1])
    return torch.cat([offsets[:, a] * offsets[:, b], offsets, torch.ones_like(offsets[:, :1])], 1)


def inverse(covariances: Tensor) -> tuple[Tensor, Tensor]:
    """Inverses (..., D, D) and determinants' logarithms (...) of covariances."""
    if covariances.shape[-1] == 2:  # by hand: ten times as fast
        a, b, c = covariances[..., 0, 0], covariances[..., 0, 1], covariances[..., 1, 1]
        determinant = a * c - b * b
        adjugate = torch.stack([c, -b, -b, a], -1).unflatten(-1, (2, 2))
        return adjugate / determinant[..., None, None], determinant.log()
    factors = torch.linalg.cholesky(covariances)
    return torch.cholesky_inverse(factors), 2 * factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def coefficients(shares: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    """log(pi_j N(z | mu_j, Sigma_j)) as a polynomial in z: (n, J, monomials); -inf for segments of share 0.

    Means and z are offsets from the same point; the product with :func:`monomials` is (n, J, P).
    """
    precisions, log_determinant = inverse(covariances)
    slopes = (precisions * means[..., None, :]).sum(-1)
    constant = (
        shares.log()
        - means.shape[-1] / 2 * math.log(2 * math.pi)
        - 0.5 * log_determinant
        - 0.5 * (means * slopes).sum(-1)
    )
    a, b = torch.triu_indices(means.shape[-1], means.shape[-1])
    # A mixed product stands once among the monomials and twice in the quadratic form.
    squares = precisions[..., a, b] * torch.where(a == b, -0.5, -1.0)
    return torch.cat([squares, slopes, constant[..., None]], -1)


def _packed(shares: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    return torch.cat([shares[..., None], means, covariances.flatten(2)], 2)


def _unpacked(state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    d = math.isqrt(state.shape[2] - 1)  # 1 + d + d^2 lies between the squares of d and d + 1
    shares, means, covariances = state.split([1, d, d * d], 2)
    return shares[..., 0], means, covariances.unflatten(2, (d, d))


def _expectation_maximisation(
    monomials: Tensor, weights: Tensor, state: Tensor, floor: Tensor, max_iter: int, tol: float
) -> Tensor:
    """The state of every set where a step moves it by no more than ``tol``.

    Two plain steps and an extrapolation of them, in turn: SQUAREM, scheme S3 of Varadhan and Roland 2008.
    What the extrapolation loses beyond ``SLACK``, or where it is no mixture, the plain steps stand.
    """
    result = state.clone()
    active = torch.arange(len(state))
    extrapolated = torch.zeros(len(state), dtype=torch.bool)
    likelihood = torch.full((len(state),), -torch.inf, dtype=torch.float64)
    longest = torch.ones(len(state), dtype=torch.float64)
    plain = state
    for _ in range(0, max_iter, 2):
        one, reached = _step(monomials, weights, state, floor)
        worse = extrapolated & ~(reached >= likelihood - SLACK)
        state, one = (torch.where(worse[:, None, None], plain, value) for value in (state, one))
        likelihood = torch.where(worse, likelihood, reached)
        plain, _ = _step(monomials, weights, one, floor)
        moved = _movement(one, plain)
        first = ~worse & (_movement(state, one) <= tol)
        result[active] = torch.where(first[:, None, None], one, plain)
        going = ~first & (moved > tol)
        if not going.any():
            break
        change = one - state
        bend = plain - one - change
        length = change.flatten(1).norm(dim=1) / bend.flatten(1).norm(dim=1).clamp_min(1e-300)
        longest = torch.where(worse, (longest / 4).clamp_min(1), longest)
        at_most = torch.minimum(length, longest).clamp_min(1)[:, None, None]
        longest = torch.where(~worse & (length >= longest), 4 * longest, longest)
        ahead = state + 2 * at_most * change + at_most**2 * bend
        extrapolated = ~worse & (moved <= CALM) & _is_mixture(ahead, one, floor)
        state = torch.where(extrapolated[:, None, None], ahead, plain)
        if not going.all():
            active, monomials, weights, state, plain, extrapolated, likelihood, longest = (
                value[going]
                for value in (active, monomials, weights, state, plain, extrapolated, likelihood, longest)
            )
    return result


def _step(monomials: Tensor, weights: Tensor, state: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
    """The state after one step, and the log-likelihood (n,) before it."""
    shares, means, covariances = _unpacked(state)
    d = means.shape[2]
    # E-step, with powers of two, which are faster: responsibilities r_ij, times the mass p_i of their pixel.
    joint = torch.bmm(coefficients(shares, means, covariances) / math.log(2), monomials)
    largest = joint.amax(1, keepdim=True)
    joint = joint.sub_(largest).exp2_()
    total = joint.sum(1, keepdim=True)
    likelihood = (weights * (largest + total.log2())[:, 0]).sum(1) * math.log(2)
    joint *= weights[:, None] / total
    # M-step: zeroth, first and second moments of each segment.  A segment
    # whose mass is gone is dropped and keeps its last mean and covariance.
    moments = torch.bmm(joint, monomials.mT)
    held = moments[..., -1:]
    kept = held > 1e-10
    a, b = torch.triu_indices(d, d)
    # Where entry (a, b) of a symmetric matrix stands among the monomials.
    where = torch.zeros(d, d, dtype=torch.int64)
    where[a, b] = where[b, a] = torch.arange(len(a))
    second, first = (moments[..., :-1] / held.clamp_min(1e-10)).split([len(a), d], -1)
    scatter = second[..., where] - first[..., None] * first[..., None, :]
    new = torch.cat([first, (scatter + floor).flatten(2)], 2)
    held = torch.where(kept, held, 0.0)
    return torch.cat(
        [held / held.sum(1, keepdim=True), torch.where(kept, new, state[..., 1:])], 2
    ), likelihood


def _movement(before: Tensor, after: Tensor) -> Tensor:
    """Largest change (n,) of a mixture weight or a mean."""
    d = math.isqrt(before.shape[2] - 1)
    return (after - before)[..., : 1 + d].abs().amax((1, 2))


def _is_mixture(state: Tensor, before: Tensor, floor: Tensor) -> Tensor:
    """Whether no segment was lost and no covariance is under half of the floor, (n,) bool."""
    shares, _, covariances = _unpacked(state)
    above = covariances - floor / 2
    if above.shape[-1] == 2:
        a, b, c = above[..., 0, 0], above[..., 0, 1], above[..., 1, 1]
        proper = (a > 0) & (a * c > b * b)
    else:
        proper = torch.linalg.cholesky_ex(above).info == 0
    return (proper & ((shares > 0) | (before[..., 0] == 0))).all(1)
