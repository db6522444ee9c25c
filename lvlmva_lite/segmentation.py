"""Step 3: from an attribution map to segments that can be talked about.

PPEPS-WGM, Positive Predictive Effect Probability Segmentation by a Weighted
Gaussian Mixture (arXiv 2512.21985): the positive part of an attribution map,
normalised, is a probability mass over pixels; a mixture of J Gaussians fitted
to it by weighted maximum likelihood splits the effect into J segments, and
each mixture weight is the share of effect that its segment holds.  Two things
go beyond the paper: J can be chosen by an information criterion
(:mod:`lvlmva_lite.segment_choice`), and features of the pixels can stand
beside their positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from tqdm import tqdm

from lvlmva_lite import mixture
from lvlmva_lite.threads import threads


@dataclass(frozen=True)
class Segments:
    """Segments of n attribution maps, J for each.

    Positions are (row, column) of pixel centres in [0, 1]^2: pixel (r, c) of
    an H x W image lies at ((r + 0.5) / H, (c + 0.5) / W).

    Attributes
    ----------
    labels : Tensor, (n, H, W), int64
        Segment of each pixel, 0 .. J - 1; -1 where the effect is not positive
        (of superpixels: outside those that were kept).
    shares : Tensor, (n, J), float64
        Share of the positive effect held by each segment, largest first; they
        are the mixture weights pi_j and sum to 1.  All zero for a map without
        positive effect.  Segments that a map cannot fill (fewer positive
        pixels than J) or does not use have share 0.
    means : Tensor, (n, J, D), float64
        D = 2; where F features stood beside the positions, D = 2 + F, and the
        last F are in units of the feature.
    covariances : Tensor, (n, J, D, D), float64
    log_likelihood : Tensor, (n,), float64
        sum_i w_i log sum_j pi_j N(z_i | mu_j, Sigma_j) with w_i = H W p_i;
        0 for a map without positive effect; nan where no mixture was fitted
        (superpixels).
    entropy : Tensor, (n,), float64
        sum_i p_i H(r_i) in nats, of the responsibilities r_i1 .. r_iJ: how
        undecided it is to which segment a unit of effect belongs; 0 when
        segments do not overlap.
    """

    labels: Tensor
    shares: Tensor
    means: Tensor
    covariances: Tensor
    log_likelihood: Tensor
    entropy: Tensor

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

    Derived in chapter 4.

    Raises
    ------
    ValueError : a map holds NaN or infinite values (the message names it)
    """
    attributions = _checked_maps(attributions)
    positive = attributions.double().clamp_min(0)
    # Scaling by the maximum first keeps huge and tiny maps from overflowing the sum.
    positive = positive / positive.amax((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return positive / positive.sum((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def _checked_maps(attributions: Tensor) -> Tensor:
    """Attributions as a tensor (n, H, W) of finite numbers on the CPU."""
    attributions = torch.as_tensor(attributions).detach().cpu()
    if attributions.ndim != 3:
        raise ValueError(f"attributions must be (n, H, W), got shape {tuple(attributions.shape)}")
    bad = ~attributions.isfinite().all(2).all(1)
    if bad.any():
        raise ValueError(
            f"the attribution map of image {int(bad.nonzero()[0])} holds NaN or infinite values "
            f"({int(bad.sum())} of {len(bad)} maps do); drop it or explain it again"
        )
    return attributions


def segment_sums(labels: Tensor, n_segments: int, values: Tensor | None = None) -> Tensor:
    """Sum over the pixels of each segment, in memory proportional to the pixels.

    Parameters
    ----------
    labels : (n, H, W) int64, segment of each pixel, -1 for none
    n_segments : J
    values : (n, H, W); None: 1 for every pixel, so that the sums are areas

    Returns
    -------
    Tensor, (n, J), float64; 0 for segments without a pixel
    """
    values = torch.ones_like(labels, dtype=torch.float64) if values is None else values.double()
    # Column 0 takes what lies in no segment.
    sums = torch.zeros(len(labels), n_segments + 1, dtype=torch.float64)
    return sums.scatter_add_(1, labels.flatten(1) + 1, values.flatten(1))[:, 1:]


BATCH = 2**19
"""Responsibilities, maps times segments times pixels, that are computed at once: 4 MB each of some ten arrays."""


@threads()
def ppeps_wgm(
    attributions: Tensor,
    n_segments: int,
    *,
    features: Tensor | None = None,
    feature_weight: float = 1.0,
    max_iter: int = 10_000,
    tol: float = 5e-5,
    random_state: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
) -> Segments:
    """Fit one weighted Gaussian mixture per attribution map.

    Expectation-maximisation on many maps at once, with extrapolated steps
    (:mod:`lvlmva_lite.mixture`).  Only pixels of positive effect take part.
    Every covariance is kept at or above that of a single pixel (variance 1/12
    of its side), so that a segment may shrink to one pixel but not below.

    With ``features`` the mixture lives in 2 + F dimensions, position and
    features, so that segments may overlap in space where they differ in
    colour, say.  A Gaussian mixture takes any scale of a feature; what
    ``feature_weight`` sets is the finest difference that counts.

    Derived in chapters 4 and 12.

    Parameters
    ----------
    attributions : (n, H, W) float tensor or array, any scale
    n_segments : J >= 1
    features : (n, F, H, W) float tensor or array, optional; best of order 1
        like the positions, for instance the images themselves
    feature_weight : how many sides of the image a difference of 1 in a feature
        is worth, > 0.  It decides what lies far apart at the start, and the
        least standard deviation in a feature, that of one pixel:
        1 / (feature_weight sqrt(12 H W)).  Near 0, features count for nothing.
    max_iter : most EM steps for a map, rounded up to an even number
    tol : a map is done when no mixture weight and no mean (in [0, 1]) moved by
        more than this in a step; a step sets pi_j to S_j, so their difference
        is of this order
    random_state : int, draws the starting means (weighted k-means++); each map
        gets the same draws, so its result does not depend on its neighbours
    batch_size : most maps fitted at once; None: as many as ``BATCH`` allows, so
        that memory beside maps and result does not grow with n
    progress : show a progress bar

    Returns
    -------
    Segments

    Raises
    ------
    ValueError : wrong shape, ``n_segments`` < 1, ``feature_weight`` not above 0,
        NaN or infinite values
    """
    if n_segments < 1:
        raise ValueError(f"n_segments must be at least 1, got {n_segments}")
    if not 0 < feature_weight < math.inf:
        raise ValueError(f"feature_weight must be a number above 0, got {feature_weight}")
    attributions = _checked_maps(attributions)
    n, height, width = attributions.shape
    features = _checked_features(features, attributions.shape)
    n_features = features.shape[1]
    positions = _positions(height, width)
    sides = torch.tensor([height, width] + [math.sqrt(height * width)] * n_features)
    floor = torch.diag(sides.double() ** -2) / 12

    labels = torch.full((n, height * width), -1)
    shares = torch.zeros(n, n_segments, dtype=torch.float64)
    means = torch.tensor([0.5, 0.5] + [0.0] * n_features, dtype=torch.float64).repeat(n, n_segments, 1)
    covariances = floor.repeat(n, n_segments, 1, 1)
    log_likelihood, entropy = torch.zeros(2, n, dtype=torch.float64)

    n_positive = (attributions > 0).sum((1, 2))
    # Maps of like size share a batch, so that little is padded.
    order = n_positive.argsort(stable=True)
    order = order[n_positive[order] > 0]
    bar = tqdm(total=len(order), desc="segmenting", unit="map", disable=not progress)
    while len(order):
        # The largest of a batch is not known before its size, but they are in order.
        fitting = n_positive[order] * n_segments * torch.arange(1, len(order) + 1) <= BATCH
        index = order[: max(1, min(int(fitting.sum()), batch_size or len(order)))]
        order = order[len(index) :]
        mass = positive_effect(attributions[index]).flatten(1)
        weights, pixels = mass.topk(int(n_positive[index].max()))
        points = positions[:, pixels].transpose(0, 1)
        if n_features:
            lengths = features[index].flatten(2).double() * feature_weight
            points = torch.cat([points, lengths.gather(2, pixels[:, None].expand(-1, n_features, -1))], 1)
        points = points.contiguous()
        middle = (weights[:, None] * points).sum(2, keepdim=True)
        middle[:, :2] = 0.5
        fitted = mixture.fit(
            points, weights, n_segments, floor,
            middle=middle, random_state=random_state, max_iter=max_iter, tol=tol,
        )  # fmt: skip
        shares[index], means[index], covariances[index] = fitted
        coefficients = mixture.coefficients(fitted[0], fitted[1] - middle.mT, fitted[2])
        log_joint = coefficients @ mixture.monomials(points - middle)
        segment = torch.where(weights > 0, mixture.first_largest(log_joint), -1)
        labels[index] = labels[index].scatter(1, pixels, segment)
        log_density = log_joint.logsumexp(1, keepdim=True)
        log_likelihood[index] = height * width * (weights * log_density[:, 0]).sum(1)
        undecided = torch.special.entr((log_joint - log_density).exp()).sum(1)
        entropy[index] = (weights * undecided).sum(1)
        bar.update(len(index))
    bar.close()

    # From lengths back to units of the feature, the density too.
    unit = torch.tensor([1.0, 1.0] + [1 / feature_weight] * n_features, dtype=torch.float64)
    log_likelihood[n_positive > 0] -= height * width * unit.log().sum()
    return Segments(
        labels.view(n, height, width),
        shares,
        means * unit,
        covariances * unit * unit[:, None],
        log_likelihood,
        entropy,
    )


def _positions(height: int, width: int) -> Tensor:
    """Rows and columns of the pixels' centres in [0, 1], (2, H W) float64."""
    rows = (torch.arange(height, dtype=torch.float64) + 0.5) / height
    columns = (torch.arange(width, dtype=torch.float64) + 0.5) / width
    return torch.cartesian_prod(rows, columns).T


def _checked_features(features: Tensor | None, shape: Sequence[int]) -> Tensor:
    """Features as (n, F, H, W) float64, F = 0 for none."""
    n, height, width = shape
    if features is None:
        return torch.zeros(n, 0, height, width, dtype=torch.float64)
    features = torch.as_tensor(features).detach().cpu().double()
    if features.ndim != 4 or (features.shape[0], *features.shape[2:]) != (n, height, width):
        raise ValueError(
            f"features must be (n, F, H, W) = ({n}, F, {height}, {width}) like the attributions, "
            f"got shape {tuple(features.shape)}"
        )
    bad = ~features.isfinite().flatten(1).all(1)
    if bad.any():
        raise ValueError(f"the features of image {int(bad.nonzero()[0])} hold NaN or infinite values")
    return features


@threads()
def filled(segments: Segments, distance: float = 6.0, *, features: Tensor | None = None) -> Segments:
    """The same mixtures, with every pixel near a segment's Gaussian labelled, whatever its effect.

    The hard assignment c_i = argmax_j r_ij is defined for all pixels, not only
    for those of positive effect.  A mask made of the latter is full of holes,
    through which a convolutional network goes on seeing what is masked.

    Derived in chapters 8 and 12.

    Parameters
    ----------
    segments : from :func:`ppeps_wgm`
    distance : squared Mahalanobis distance from its Gaussian up to which a
        pixel belongs to a segment; in the plane the ellipse of 6 holds 95 % of
        a Gaussian's mass
    features : (n, F, H, W), those that the mixtures were fitted with, if any

    Returns
    -------
    Segments : other ``labels``, everything else as it was

    Raises
    ------
    ValueError : ``distance`` not above 0, or features that do not fit the mixtures
    """
    if not distance > 0:
        raise ValueError(f"distance must be above 0, got {distance}")
    n, height, width = segments.labels.shape
    features = _checked_features(features, segments.labels.shape)
    if features.shape[1] + 2 != segments.means.shape[2]:
        raise ValueError(
            f"the mixtures have {segments.means.shape[2] - 2} features beside the position, "
            f"got {features.shape[1]}; give those they were fitted with"
        )
    positions = _positions(height, width)
    labels = torch.full((n, height * width), -1)
    for i in range(n):  # one at a time: (pixels, J, D) differences
        points = torch.cat([positions, features[i].flatten(1).double()]).T
        offsets = points[:, None] - segments.means[i]
        precisions, log_determinant = mixture.inverse(segments.covariances[i])
        squared = torch.einsum("pjd,jde,pje->pj", offsets, precisions, offsets)
        joint = segments.shares[i].log() - 0.5 * log_determinant - 0.5 * squared
        nearest = joint.argmax(1)
        near = squared.gather(1, nearest[:, None])[:, 0] <= distance
        labels[i] = torch.where(near & (segments.shares[i].sum() > 0), nearest, -1)
    return replace(segments, labels=labels.view(n, height, width))
