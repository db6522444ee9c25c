"""Step 3: from an attribution map to segments that can be talked about.

PPEPS-WGM, Positive Predictive Effect Probability Segmentation by a Weighted
Gaussian Mixture (arXiv 2512.21985): the positive part of an attribution map,
normalised, is a probability mass over pixels; a mixture of J Gaussians fitted
to it by weighted maximum likelihood splits the effect into J segments, and
each mixture weight is the share of effect that its segment holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from tqdm import tqdm


@dataclass(frozen=True)
class Segments:
    """Segments of n attribution maps, J for each.

    Positions are (row, column) of pixel centres in [0, 1]^2: pixel (r, c) of
    an H x W image lies at ((r + 0.5) / H, (c + 0.5) / W).

    Attributes
    ----------
    labels : Tensor, (n, H, W), int64
        Segment of each pixel, 0 .. J - 1; -1 where the effect is not positive.
    shares : Tensor, (n, J), float64
        Share of the positive effect held by each segment, largest first; they
        are the mixture weights pi_j and sum to 1.  All zero for a map without
        positive effect.  Segments that a map cannot fill (fewer positive
        pixels than J) have share 0.
    means : Tensor, (n, J, 2), float64
    covariances : Tensor, (n, J, 2, 2), float64
    log_likelihood : Tensor, (n,), float64
        sum_i w_i log sum_j pi_j N(z_i | mu_j, Sigma_j) with w_i = H W p_i;
        0 for a map without positive effect.
    """

    labels: Tensor
    shares: Tensor
    means: Tensor
    covariances: Tensor
    log_likelihood: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_segments(self) -> int:
        return self.shares.shape[1]

    def subset(self, indices: Tensor) -> Segments:
        """The segments of the maps at ``indices``."""
        return Segments(*(getattr(self, field.name)[indices] for field in fields(self)))


def positive_effect(attributions: Tensor) -> Tensor:
    """Probability that one unit of positive effect lands on each pixel.

    ``p_i = max(Phi_i, 0) / sum_i max(Phi_i, 0)``, float64 on the CPU, same shape
    (n, H, W) as ``attributions``; all zero where a map has no positive value.

    Raises
    ------
    ValueError : a map holds NaN or infinite values (the message names it)
    """
    attributions = torch.as_tensor(attributions).detach().cpu()
    if attributions.ndim != 3:
        raise ValueError(f"attributions must be (n, H, W), got shape {tuple(attributions.shape)}")
    bad = ~attributions.isfinite().all(2).all(1)
    if bad.any():
        raise ValueError(
            f"the attribution map of image {int(bad.nonzero()[0])} holds NaN or infinite values "
            f"({int(bad.sum())} of {len(bad)} maps do); drop it or explain it again"
        )
    positive = attributions.double().clamp_min(0)
    # Scaling by the maximum first keeps huge and tiny maps from overflowing the sum.
    positive = positive / positive.amax((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return positive / positive.sum((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def ppeps_wgm(
    attributions: Tensor,
    n_segments: int,
    *,
    max_iter: int = 10_000,
    tol: float = 5e-5,
    random_state: int = 0,
    batch_size: int = 128,
    progress: bool = False,
) -> Segments:
    """Fit one weighted Gaussian mixture per attribution map.

    Expectation-maximisation on all maps of a batch at once.  Only pixels of
    positive effect take part.  Every covariance is kept at or above that of a
    single pixel (variance 1/12 of its side), so that a segment may shrink to
    one pixel but not below.

    Parameters
    ----------
    attributions : (n, H, W) float tensor or array, any scale
    n_segments : J >= 1
    max_iter : most EM steps for a map
    tol : a map is done when no mixture weight and no mean (in [0, 1]) moved by
        more than this in a step; a step sets pi_j to S_j, so their difference
        is of this order
    random_state : int, draws the starting means (weighted k-means++); each map
        gets the same draws, so its result does not depend on its neighbours
    batch_size : maps fitted at once; the work is memory-bound and small
        batches are faster
    progress : show a progress bar

    Returns
    -------
    Segments

    Raises
    ------
    ValueError : wrong shape, ``n_segments`` < 1, NaN or infinite values
    """
    if n_segments < 1:
        raise ValueError(f"n_segments must be at least 1, got {n_segments}")
    mass = positive_effect(attributions)
    n, height, width = mass.shape
    rows = (torch.arange(height, dtype=torch.float64) + 0.5) / height
    columns = (torch.arange(width, dtype=torch.float64) + 0.5) / width
    positions = torch.cartesian_prod(rows, columns)
    pixel_covariance = torch.diag(torch.tensor([height**-2.0, width**-2.0], dtype=torch.float64)) / 12

    labels = torch.full((n, height * width), -1)
    shares = torch.zeros(n, n_segments, dtype=torch.float64)
    means = torch.full((n, n_segments, 2), 0.5, dtype=torch.float64)
    covariances = pixel_covariance.expand(n, n_segments, 2, 2).clone()
    log_likelihood = torch.zeros(n, dtype=torch.float64)

    mass = mass.flatten(1)
    n_positive = (mass > 0).sum(1)
    # Maps of like size share a batch, so that little is padded.
    order = n_positive.argsort(stable=True)
    order = order[n_positive[order] > 0]
    batches = order.split(batch_size) if len(order) else ()
    for index in tqdm(batches, desc="segmenting", unit="batch", disable=not progress):
        weights, pixels = mass[index].topk(int(n_positive[index].max()))
        points = positions[pixels]
        start = _kmeans_plus_plus(points, weights, n_segments, random_state)
        fitted = _expectation_maximisation(points, weights, *start, pixel_covariance, max_iter, tol)

        by_share = fitted[0].argsort(dim=1, descending=True, stable=True)
        take = torch.arange(len(index))[:, None]
        shares[index], means[index], covariances[index] = (value[take, by_share] for value in fitted)
        log_joint = _log_joint(_monomials(points), shares[index], means[index], covariances[index])
        segment = torch.where(weights > 0, log_joint.argmax(2), -1)
        labels[index] = labels[index].scatter(1, pixels, segment)
        log_likelihood[index] = height * width * (weights * log_joint.logsumexp(2)).sum(1)

    return Segments(labels.view(n, height, width), shares, means, covariances, log_likelihood)


def _kmeans_plus_plus(
    points: Tensor, weights: Tensor, n_segments: int, random_state: int
) -> tuple[Tensor, Tensor]:
    """Starting shares (n, J) and means (n, J, 2): weighted k-means++, then ten steps of Lloyd.

    Where a map has fewer pixels than segments, the surplus starts with share 0.
    """
    generator = torch.Generator().manual_seed(random_state)
    draws = torch.rand(n_segments, generator=generator, dtype=torch.float64)
    batch = torch.arange(len(points))
    distance = torch.ones_like(weights)
    chosen, found = [], []
    for draw in draws:
        cumulative = (weights * distance).cumsum(1)
        pick = (cumulative <= draw * cumulative[:, -1:]).sum(1).clamp_max(points.shape[1] - 1)
        chosen.append(points[batch, pick])
        found.append(cumulative[:, -1] > 0)
        distance = _distances(points, torch.stack(chosen, 1)).amin(2).square()
    means, exists = torch.stack(chosen, 1), torch.stack(found, 1).double()
    for _ in range(10):
        assigned = _distances(points, means).argmin(2)
        one_hot = torch.nn.functional.one_hot(assigned, n_segments) * weights[..., None]
        total = one_hot.sum(1)[..., None]
        means = torch.where(total > 0, one_hot.transpose(1, 2) @ points / total.clamp_min(1e-300), means)
    return exists / exists.sum(1, keepdim=True), means


def _distances(points: Tensor, means: Tensor) -> Tensor:
    """Euclidean distances (n, P, J), exactly 0 between equal positions."""
    return torch.cdist(points, means, compute_mode="donot_use_mm_for_euclid_dist")


def _monomials(points: Tensor) -> Tensor:
    """y^2, yx, x^2, y, x, 1 of positions (..., 2) about the image's centre, (..., 6).

    Both halves of an EM step are matrix products with them: the log-densities
    are quadratic forms, the moments are weighted sums.  About the centre the
    cancellation is harmless in float64.
    """
    y, x = (points - 0.5).unbind(-1)
    return torch.stack([y * y, y * x, x * x, y, x, torch.ones_like(y)], -1)


def _log_joint(monomials: Tensor, shares: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    """log(pi_j N(z_i | mu_j, Sigma_j)), (n, P, J); -inf for segments of share 0."""
    a, b, c = covariances[..., 0, 0], covariances[..., 0, 1], covariances[..., 1, 1]
    determinant = a * c - b * b
    p_yy, p_yx, p_xx = c / determinant, -b / determinant, a / determinant
    y0, x0 = (means - 0.5).unbind(-1)
    constant = (
        shares.log()
        - math.log(2 * math.pi)
        - 0.5 * determinant.log()
        - 0.5 * (p_yy * y0 * y0 + 2 * p_yx * y0 * x0 + p_xx * x0 * x0)
    )
    coefficients = torch.stack(
        [-0.5 * p_yy, -p_yx, -0.5 * p_xx, p_yy * y0 + p_yx * x0, p_yx * y0 + p_xx * x0, constant], 1
    )
    return monomials @ coefficients


def _expectation_maximisation(
    points: Tensor,
    weights: Tensor,
    shares: Tensor,
    means: Tensor,
    pixel_covariance: Tensor,
    max_iter: int,
    tol: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shares, means and covariances of the maps of one batch."""
    n, n_segments = means.shape[:2]
    # The first step starts from the spread of the whole map.
    centre = (weights[..., None] * points).sum(1)
    offset = points - centre[:, None]
    spread = (weights[..., None] * offset).transpose(1, 2) @ offset / n_segments + pixel_covariance
    result = (
        shares.clone(),
        means.clone(),
        spread[:, None].expand(n, n_segments, 2, 2).clone(),
    )
    monomials = _monomials(points)
    active = torch.arange(n)
    for _ in range(max_iter):
        z, w = monomials[active], weights[active]
        shares, means, covariances = (value[active] for value in result)
        # E-step: the responsibilities r_ij, times the mass p_i of their pixel.
        joint = _log_joint(z, shares, means, covariances).softmax(2) * w[..., None]
        # M-step: zeroth, first and second moments of each segment.  A segment
        # whose mass is gone is dropped and keeps its last mean and covariance.
        moments = joint.transpose(1, 2) @ z
        kept = moments[..., 5] > 1e-10
        new_shares = torch.where(kept, moments[..., 5], 0.0)
        y_y, y_x, x_x, y, x = (moments[..., :5] / moments[..., 5:].clamp_min(1e-10)).unbind(-1)
        scatter = torch.stack([y_y - y * y, y_x - y * x, y_x - y * x, x_x - x * x], -1)
        new_means = torch.stack([y, x], -1) + 0.5
        new_covariances = scatter.unflatten(-1, (2, 2)) + pixel_covariance
        new_means = torch.where(kept[..., None], new_means, means)
        result[0][active] = new_shares / new_shares.sum(1, keepdim=True)
        result[1][active] = new_means
        result[2][active] = torch.where(kept[..., None, None], new_covariances, covariances)
        moved = torch.maximum((new_shares - shares).abs(), (new_means - means).abs().amax(2)).amax(1)
        active = active[moved > tol]
        if not len(active):
            break
    return result
