"""Weighted mixtures of Gaussians, many at once: what PPEPS-WGM is made of.

Every array keeps the points last, (n, J, P): what is summed over segments is then summed over whole rows,
and both halves of a step are matrix products with the monomials of the points, for a Gaussian's
logarithm is a quadratic form and its moments are weighted sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from lvlmva_lite.streams import stream

SLACK = 1e-4
"""Nats per unit of mass that an extrapolation may lose; plain steps with a floor lose about as much."""

CALM = 1e-2
"""Steps are extrapolated where no mixture weight and no mean moved by more than this."""


WINDOW = 2**17
"""Responsibilities that are computed in one go: one megabyte, so that a step stays within a processor's cache."""


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
    size = _window(n_segments, points.shape[2])
    parts = (
        start(some, their, n_segments, random_state)
        for some, their in zip(points.split(size), weights.split(size), strict=True)
    )
    shares, means = (torch.cat(part) for part in zip(*parts, strict=True))
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


def _window(n_segments: int, n_points: int) -> int:
    """How many sets are worked on at once."""
    return max(1, WINDOW // (n_segments * n_points))


def start(points: Tensor, weights: Tensor, n_segments: int, random_state: int) -> tuple[Tensor, Tensor]:
    """Starting shares (n, J) and means (n, J, D): weighted k-means++, then ten steps of Lloyd.

    Where a map has fewer pixels than segments, the surplus starts with share 0.
    """
    generator = stream(random_state, "mixture starts")
    draws = torch.rand(n_segments, generator=generator, dtype=torch.float64)
    sets = torch.arange(len(points))
    nearest = torch.full_like(weights, torch.inf)
    assigned = torch.zeros_like(weights, dtype=torch.int64)
    chance, chosen, found = weights, [], []
    for j, draw in enumerate(draws):
        cumulative = chance.cumsum(1)
        pick = (cumulative <= draw * cumulative[:, -1:]).sum(1).clamp_max(points.shape[2] - 1)
        chosen.append(points[sets, :, pick])
        found.append(cumulative[:, -1] > 0)
        distance = (points - chosen[-1][..., None]).square().sum(1).sqrt()
        assigned = torch.where(distance < nearest, j, assigned)
        nearest = torch.minimum(nearest, distance)
        chance = weights * nearest.square()
    means, exists = torch.stack(chosen, 1), torch.stack(found, 1).double()
    room = torch.empty(len(points), n_segments, points.shape[2], dtype=torch.float64)
    largest = torch.empty_like(room[:, :1])
    with_one = torch.cat([points, torch.ones_like(points[:, :1])], 1)
    held = room.zero_().scatter_(1, assigned[:, None], weights[:, None])
    for step in range(10):
        if step:  # nearest is where m z - m^2 / 2 is largest
            lines = torch.cat([means, -0.5 * means.square().sum(2, keepdim=True)], 2)
            torch.amax(torch.bmm(lines, with_one, out=room), 1, keepdim=True, out=largest)
            held = torch.where(room == largest, weights[:, None], 0.0)
        sums, total = torch.bmm(held, with_one.mT).tensor_split([-1], 2)
        means = torch.where(total > 0, sums / total.clamp_min(1e-300), means)
    return exists / exists.sum(1, keepdim=True), means


def first_largest(values: Tensor) -> Tensor:
    """Which segment's value is the largest, the first where several are: (n, P) int64 of (n, J, P).

    As ``values.argmax(1)``, which takes a hundred times as long across rows.
    """
    largest, place = values[:, 0], torch.zeros_like(values[:, 0], dtype=torch.int64)
    for j in range(1, values.shape[1]):
        place = torch.where(values[:, j] > largest, j, place)
        largest = torch.maximum(largest, values[:, j])
    return place


def monomials(offsets: Tensor) -> Tensor:
    """y^2, yx, x^2, y, x, 1 of offsets (n, 2, P), and so on for any (n, D, P)."""
    a, b = torch.triu_indices(offsets.shape[1], offsets.shape[1])
    return torch.cat([offsets[:, a] * offsets[:, b], offsets, torch.ones_like(offsets[:, :1])], 1)


def inverse(covariances: Tensor) -> tuple[Tensor, Tensor]:
    """Inverses (..., D, D) and determinants' logarithms (...) of covariances."""
    factors = torch.linalg.cholesky(covariances)
    return torch.cholesky_inverse(factors), 2 * factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def coefficients(shares: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    """log(pi_j N(z | mu_j, Sigma_j)) as a polynomial in z: (n, J, monomials); -inf for segments of share 0.

    Means and z are offsets from the same point; the product with :func:`monomials` is (n, J, P).
    """
    d = means.shape[-1]
    if d == 2:  # by hand: ten times as fast
        (y, x), (a, b, _, c) = means.unbind(-1), covariances.flatten(-2).unbind(-1)
        determinant = a * c - b * b
        a, b, c = a / determinant, b / determinant, c / determinant
        slope_y, slope_x = c * y - b * x, a * x - b * y
        constant = (shares / determinant.sqrt()).log() - 0.5 * (y * slope_y + x * slope_x)
        constant -= math.log(2 * math.pi)
        return torch.stack([-0.5 * c, b, -0.5 * a, slope_y, slope_x, constant], -1)
    precisions, log_determinant = inverse(covariances)
    slopes = (precisions * means[..., None, :]).sum(-1)
    constant = shares.log() - 0.5 * (log_determinant + (means * slopes).sum(-1) + d * math.log(2 * math.pi))
    entries, _ = _places(d)
    # A mixed product stands once among the monomials and twice in the quadratic form.
    twice = torch.where(entries % (d + 1) == 0, -0.5, -1.0)
    squares = precisions.flatten(-2)[..., entries] * twice
    return torch.cat([squares, slopes, constant[..., None]], -1)


@cache
def _places(d: int) -> tuple[Tensor, Tensor]:
    """Which entry of a symmetric matrix (d, d), flat, each square among the monomials is; and the reverse."""
    a, b = torch.triu_indices(d, d)
    where = torch.zeros(d, d, dtype=torch.int64)
    where[a, b] = where[b, a] = torch.arange(len(a))
    return a * d + b, where.flatten()


def _packed(shares: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    return torch.cat([shares[..., None], means, covariances.flatten(2)], 2)


def _unpacked(state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    d = math.isqrt(state.shape[2] - 1)  # 1 + d + d^2 lies between the squares of d and d + 1
    shares, means, covariances = state.split([1, d, d * d], 2)
    return shares[..., 0], means, covariances.unflatten(2, (d, d))


def _expectation_maximisation(
    monomials: Tensor, weights: Tensor, states: Tensor, floor: Tensor, max_iter: int, tol: float
) -> Tensor:
    """The state of every set where a step moves it by no more than ``tol``.

    Two plain steps and an extrapolation of them, in turn: SQUAREM, scheme S3 of Varadhan and Roland 2008.
    Where the extrapolation loses more than ``SLACK``, or is no mixture, the plain steps stand.  A window of
    sets is at work; what is done leaves it, and others join, which changes no set's own steps.
    """

    def joining(sets: Tensor) -> list[Tensor]:
        n = len(sets)
        none = torch.zeros(n, dtype=torch.bool)
        longest = torch.ones(n, dtype=torch.float64)
        return [
            sets, monomials[sets], weights[sets], states[sets], states[sets], none, none,
            -torch.inf * longest, longest, torch.zeros_like(sets),
        ]  # fmt: skip

    result = states.clone()
    first, waiting = torch.arange(len(states)).tensor_split([_window(states.shape[1], weights.shape[1])])
    rows = (states.shape[1], 1, 1)
    room = [torch.empty(len(first), j, weights.shape[1], dtype=weights.dtype) for j in rows]
    window = joining(first)
    while len(window[0]):
        sets, z, w, state, plain, extrapolated, done, likelihood, longest, n_steps = window
        one, reached = _step(z, w, state, floor, room)
        worse = extrapolated & ~(reached >= likelihood - SLACK)
        if worse.any():
            state, one = (torch.where(worse[:, None, None], plain, value) for value in (state, one))
            reached = torch.where(worse, likelihood, reached)
            longest = torch.where(worse, (longest / 4).clamp_min(1), longest)
        plain, _ = _step(z, w, one, floor, room)
        change, next_change = one - state, plain - one
        moved = _largest(next_change)
        n_steps = n_steps + 2
        still = (_largest(change) <= tol) & ~worse
        leaving = (still | (moved <= tol) | (n_steps >= max_iter)) & ~done
        if leaving.any():
            result[sets[leaving]] = torch.where(still[:, None, None], one, plain)[leaving]
            done = done | leaving

        bend = next_change - change
        length = (change.square().sum((1, 2)) / bend.square().sum((1, 2)).clamp_min(1e-300)).sqrt()
        by = torch.minimum(length, longest).clamp_min(1)
        longest = torch.where((length >= longest) & ~worse, 4 * longest, longest)
        by = by[:, None, None]
        ahead = torch.addcmul(torch.addcmul(state, by, change, value=2), by.square(), bend)
        extrapolated = ~worse & (moved <= CALM) & _is_mixture(ahead, state, floor)
        state = torch.where(extrapolated[:, None, None], ahead, plain)

        window = [sets, z, w, state, plain, extrapolated, done, reached, longest, n_steps]
        n_done = int(done.sum())
        if 8 * n_done >= len(done):  # not for each one, since it copies the points
            going = ~done
            window = [value[going] for value in window]
            if len(waiting):
                others, waiting = waiting.tensor_split([n_done])
                window = [torch.cat(pair) for pair in zip(window, joining(others), strict=True)]
    return result


def _step(
    monomials: Tensor, weights: Tensor, state: Tensor, floor: Tensor, room: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The state after one step, and the log-likelihood (n,) before it.

    ``room`` is that for responsibilities (n, J, P) and twice for sums of them (n, 1, P): a fresh array for
    each would cost as much as what is computed in it.
    """
    shares, means, covariances = _unpacked(state)
    n, d = len(state), means.shape[2]
    joint, largest, total = (part[:n] for part in room)
    # E-step, with powers of two, which are faster: responsibilities r_ij, times the mass p_i of their pixel.
    logarithms = coefficients(shares, means, covariances) / math.log(2)
    torch.bmm(logarithms, monomials, out=joint)
    torch.amax(joint, 1, keepdim=True, out=largest)
    # Numbers too small to be normal are slow; 2^-100 of a pixel is none.
    joint.sub_(largest).clamp_min_(-100).exp2_()
    torch.sum(joint, 1, keepdim=True, out=total)
    likelihood = largest.add_(total.log2()).mul_(weights[:, None]).sum((1, 2)) * math.log(2)
    joint.mul_(torch.div(weights[:, None], total, out=total))
    # M-step: zeroth, first and second moments of each segment.
    moments = torch.bmm(joint, monomials.mT)
    held = moments[..., -1:]
    _, where = _places(d)
    second, first = (moments[..., :-1] / held.clamp_min(1e-10)).split([len(monomials[0]) - d - 1, d], 2)
    scatter = second.index_select(2, where).unflatten(2, (d, d)) - first[..., None] * first[..., None, :]
    new = torch.cat([held / held.sum(1, keepdim=True), first, (scatter + floor).flatten(2)], 2)
    gone = held <= 1e-10
    if gone.any():
        # A segment whose mass is gone is dropped and keeps its last mean and covariance.
        held = torch.where(gone, 0.0, held)
        new = torch.cat([held / held.sum(1, keepdim=True), torch.where(gone, state, new)[..., 1:]], 2)
    return new, likelihood


def _largest(change: Tensor) -> Tensor:
    """Largest change (n,) of a mixture weight or a mean."""
    d = math.isqrt(change.shape[2] - 1)
    return change[..., : 1 + d].abs().amax((1, 2))


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
