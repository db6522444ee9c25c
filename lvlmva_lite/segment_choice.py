"""How many segments a map gets: a number for each, by an information criterion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from tqdm import tqdm

from lvlmva_lite.segmentation import Segments, positive_effect, ppeps_wgm
from lvlmva_lite.threads import threads

CRITERIA = ("bic", "icl")


@dataclass(frozen=True)
class SegmentChoice:
    """How many segments each map got, and why.

    Attributes
    ----------
    candidates : tuple of K ints, ascending
    scores : Tensor, (n, K), float64, the criterion; the lowest wins
    n_segments : Tensor, (n,), int64, the winner of each map
    segments : Segments
        The winner's, with room for max(candidates) segments; those that a map
        does not use have share 0 and no pixel.
    """

    candidates: tuple[int, ...]
    scores: Tensor
    n_segments: Tensor
    segments: Segments


@threads()
def choose_n_segments(
    attributions: Tensor,
    candidates: Sequence[int],
    *,
    criterion: str = "bic",
    progress: bool = False,
    **settings,
) -> SegmentChoice:
    """Choose the number of segments J of each map by an information criterion.

    With p_i the positive effect and K_J = J (1 + D + D (D + 1) / 2) - 1 the
    number of parameters (6 J - 1 in the plane),

        BIC = -2 n_eff sum_i p_i log p(z_i) + K_J log n_eff,   n_eff = 1 / sum_i p_i^2
        ICL = BIC + 2 n_eff sum_i p_i H(r_i)

    n_eff, Kish's effective sample size, stands in for the sample size: weights
    say how large each pixel's effect is, not how often it was seen, and at
    equal weights it is the number of pixels.  Sources: Schwarz 1978 (BIC);
    Biernacki, Celeux and Govaert 2000 (ICL; the form with the entropy is the
    ICL-BIC of McLachlan and Peel 2000); Kish 1965.

    Derived in chapter 4.

    Parameters
    ----------
    attributions : (n, H, W) float tensor or array
    candidates : one or more J >= 1
    criterion : "bic", or "icl", which also asks that segments do not overlap
    progress : show a progress bar
    settings : passed on to :func:`ppeps_wgm`

    Returns
    -------
    SegmentChoice
        A map without positive effect, or of one pixel, gets the smallest candidate.

    Raises
    ------
    ValueError : no candidate, one below 1, unknown criterion, or as :func:`ppeps_wgm`
    """
    candidates = tuple(sorted(set(candidates)))
    if not candidates or candidates[0] < 1:
        raise ValueError(f"candidates must be one or more whole numbers of at least 1, got {candidates}")
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}; got {criterion!r}")
    mass = positive_effect(attributions).flatten(1)
    n, n_pixels = mass.shape
    n_effective = 1 / mass.square().sum(1).clamp(1 / n_pixels, 1)
    n_effective[mass.sum(1) == 0] = 1

    scores = []
    chosen = torch.full((n,), candidates[0])
    best: Segments | None = None
    for n_segments in tqdm(candidates, desc="choosing J", unit="J", disable=not progress):
        fitted = ppeps_wgm(attributions, n_segments, **settings)
        d = fitted.means.shape[2]
        n_parameters = n_segments * (1 + d + d * (d + 1) // 2) - 1
        score = -2 * n_effective * fitted.log_likelihood / n_pixels + n_parameters * n_effective.log()
        if criterion == "icl":
            score += 2 * n_effective * fitted.entropy
        fitted = _with_room(fitted, candidates[-1])
        if best is None:
            best = fitted
        else:
            better = score < torch.stack(scores).amin(0)
            chosen[better] = n_segments
            for field in fields(Segments):
                getattr(best, field.name)[better] = getattr(fitted, field.name)[better]
        scores.append(score)
    return SegmentChoice(candidates, torch.stack(scores, 1), chosen, best)


def _with_room(segments: Segments, n_segments: int) -> Segments:
    """The same segments followed by empty ones, ``n_segments`` in all."""
    missing = n_segments - segments.n_segments

    def padded(value: Tensor) -> Tensor:
        return torch.cat([value, value[:, -1:].repeat(1, missing, *[1] * (value.ndim - 2))], 1)

    shares = torch.nn.functional.pad(segments.shares, (0, missing))
    return replace(
        segments, shares=shares, means=padded(segments.means), covariances=padded(segments.covariances)
    )
