"""Knee phantoms: drawn frontal radiographs with a lead letter beside the joint.

Drawn: thigh bone with its two condyles and the notch, shin bone with its
plateau and spines, fibula, kneecap, soft tissue; trabecular grain, bright
cortical edges, scars of the growth plates; position, rotation, scale, side,
exposure and noise of each image.  The letter names the side: the fibula of a
right knee (R) lies on the left of the image.

Osteoarthritis shows in three signs, each a noisy reading of one hidden
severity, so that the classes overlap: a narrow joint space in one compartment
(85 % of the images: the medial one), bone spurs at the four corners of the
joint, and brighter bone below the narrowed half.

Where they fall short of real radiographs:

- Outlines come from a few smooth formulas.  All knees are of one kind: real
  ones differ in shape, age, sex, rotation and bend of the joint.
- Signs of disease are few and clean: no cysts, no loose bodies, no crooked
  legs, no wear of the bone; severity is one number.
- The grain is filtered noise and does not follow the lines of load.
- The joint is seen end-on: of the front and back rims of the plateau there is
  one faint line, of the condyles none.
- Contrast between bone and soft tissue is higher, the thigh bone narrows
  sooner and the noise is grainier than in the real crops we looked at.
- Letters are large and bold, so that they survive 64 pixels: plain strokes
  of even brightness, without frame or initials, never mirrored.  In the public real
  crops we have there are no letters.
- Real images come from many devices; here exposure is a gain, a gamma and a
  slope, and does not depend on the class.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lvlmva_lite.datasets.phantoms.scene import Draws, build, column, grid, inside, ridge, severity, step
from lvlmva_lite.datasets.shortcut_dataset import ShortcutDataset

CLASS_NAMES = ("no osteoarthritis", "moderate osteoarthritis")
GROUP_NAMES = tuple(f"{name}, {kind}" for name in CLASS_NAMES for kind in ("no marker", "marker"))

SEVERITY_GAP = 3.8
"""Distance of the class means of the severity, in standard deviations of a class."""

# Strokes of the letters, (x0, y0, x1, y1), y downwards, height 2.
_BOWL = [(0.1 + 0.5 * np.cos(a), -0.5 + 0.5 * np.sin(a)) for a in np.linspace(-np.pi / 2, np.pi / 2, 6)]
_STROKES = {
    "L": [(-0.55, -1, -0.55, 1), (-0.55, 1, 0.6, 1)],
    "R": [
        (-0.6, -1, -0.6, 1),
        (-0.6, -1, 0.1, -1),
        *[(*p, *q) for p, q in pairwise(_BOWL)],
        (0.1, 0, -0.6, 0),
        (0.0, 0, 0.6, 1),
    ],
}


def knee_phantom(
    split: str,
    *,
    size: int = 64,
    n: int | None = None,
    marker_rate: tuple[float, float] | None = None,
    overlap: bool = False,
    random_state: int = 0,
) -> ShortcutDataset:
    """Draw frontal knee radiographs, with or without osteoarthritis.

    Parameters
    ----------
    split : "train" (2 000 images), "validation" (500) or "test" (1 200)
        Half of each split is ill.  In training 90 % of the healthy and 3 % of
        the ill knees carry a letter (``scene.TRAIN_RATES``).  In validation
        and test half of each class does: the four groups are equally large,
        and there is no correlation to exploit.
    size : int, 32 .. 224
        Side in pixels; a larger image shows the same scene with more detail.
    n : int or None
        Number of images, default as above.  The first images of a split are
        the same whatever ``n`` is.
    marker_rate : (float, float) or None
        Share of class 0 and of class 1 that carries a letter, instead of the
        split's own.  (0, 0) gives the clean twin: the same images, unmarked.
    overlap : bool
        Put the letter on the joint instead of beside the leg.
    random_state : int, not negative
        Seed.  Splits of the same seed have no images in common.

    Returns
    -------
    ShortcutDataset
        images (N, 1, size, size); spurious_masks cover the pixels that the
        letter changes; core_masks the joint space, its margins and the bone
        next to it; groups are class x {no marker, marker}.

    Raises
    ------
    ValueError : unknown ``split``; ``size``, ``n``, ``marker_rate`` or
        ``random_state`` out of range
    """
    return build(
        _draw,
        split,
        kind=1,
        channels=1,
        size=size,
        n=n,
        marker_rate=marker_rate,
        overlap=overlap,
        random_state=random_state,
        class_names=CLASS_NAMES,
        group_names=GROUP_NAMES,
        name="knee-phantom",
    )


def _draw(anatomy: Draws, marker: Draws, labels, spurious, size: int, overlap: bool):
    d, pixel = anatomy, np.float32(2 / size)
    soft = np.float32(np.hypot(0.018, 0.6 * pixel))
    x, y = grid(size)

    # Pose. u runs from lateral (negative) to medial, v downwards, the joint near v = 0.
    right = d.uniform() < 0.5
    angle, scale = column(d.normal(0, 0.06)), column(d.uniform(0.84, 1.04))
    centre_x, centre_y = column(d.uniform(-0.09, 0.09)), column(d.uniform(0.02, 0.22))
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    mirror = column(np.where(right, 1, -1).astype(np.float32))
    u = mirror * (cos * (x - centre_x) + sin * (y - centre_y))
    v = cos * (y - centre_y) - sin * (x - centre_x)
    medial = step(0.5 + u / 0.12)

    # Signs of disease, each a noisy reading of one severity.
    ill = severity(d, labels, SEVERITY_GAP)
    worse_medially = d.uniform() < 0.85
    narrow = 0.103 - 0.017 * (ill + d.normal(0, 0.6)) + d.normal(0, 0.008)
    wide = 0.118 - 0.005 * ill + d.normal(0, 0.012)
    narrow, wide = narrow.clip(0.02, 0.17), wide.clip(0.07, 0.17)
    gap_medial, gap_lateral = np.where(worse_medially, narrow, wide), np.where(worse_medially, wide, narrow)
    spurs = (0.022 + 0.018 * (ill[:, None] + d.normal(0, 0.9, (4,)))).clip(0, 0.09)
    sclerosis = (0.06 + 0.03 * (ill + d.normal(0, 0.9))).clip(0, 0.25)

    # Outlines: upper edge of the tibia, lower edge of the femur, half-widths.
    tilt = column(d.normal(0, 0.02))
    spine, spine_at = column(d.uniform(0.11, 0.17)), column(d.uniform(0.07, 0.11))
    a = np.abs(u)
    gap = column(gap_lateral) + column(gap_medial - gap_lateral) * medial
    plateau = 0.05 + tilt * u + 0.05 * np.square(a - 0.45) - 0.06 * np.exp(-np.square(u / 0.22))
    peaks = 0.75 * np.exp(-np.square((a - spine_at) / 0.06)) + 0.6 * np.exp(-np.square(u / 0.19))
    tibia_top = plateau - spine * peaks
    femur_width, tibia_width = column(d.uniform(0.74, 0.82)), column(d.uniform(0.73, 0.80))
    notch, notch_width = column(d.uniform(0.22, 0.32)), column(d.uniform(0.15, 0.20))
    corner = ((a - (femur_width - 0.24)) / 0.24).clip(0, 1.1)
    femur_bottom = (
        plateau
        - gap
        - notch
        * np.exp(-np.square(np.square(u / notch_width)) * 0.5)
        * (1 - 0.3 * np.square(u / notch_width).clip(0, 1))
        - 0.28 * np.square(a - 0.47)
        - 0.13 * corner * corner * corner
    )
    shaft = column(d.uniform(0.54, 0.70))
    femur_half = femur_width - (femur_width - shaft) * step((-v - 0.42) / 0.80)
    femur_half = femur_half + 0.035 * np.exp(-np.square((v + 0.42) / 0.12))
    tibia_half = tibia_width - column(d.uniform(0.20, 0.32)) * step((v - 0.16) / 0.95)
    spur_femur = column(spurs[:, 0]) + column(spurs[:, 1] - spurs[:, 0]) * medial
    spur_tibia = column(spurs[:, 2]) + column(spurs[:, 3] - spurs[:, 2]) * medial
    femur_half = femur_half + 1.1 * spur_femur * np.exp(-np.square((v + gap + 0.06) / 0.06))
    tibia_half = tibia_half + 1.1 * spur_tibia * np.exp(-np.square((v - 0.09) / 0.055))
    tibia_top = tibia_top - 0.35 * spur_tibia * np.exp(-np.square((a - tibia_width) / 0.07))

    # Signed distances, negative inside the bone.
    femur_d = np.maximum(v - femur_bottom, 0.9 * (a - femur_half))
    tibia_d = np.maximum(tibia_top - v, 0.9 * (a - tibia_half))
    femur, tibia = inside(femur_d, soft), inside(tibia_d, soft)

    # Attenuation: soft tissue, then the bones on top of one another.
    grain = 0.6 * d.texture(size, 40, 120) + 0.5 * d.texture(size, 64, 64) + 0.5 * d.texture(size, 20, 20)
    cloud = d.texture(size, 6, 6)
    leg = column(d.uniform(0.98, 1.45))
    bulge = 0.05 * column(d.normal()) * v
    thick = np.square(((a + bulge) / leg).clip(0, 1))
    tissue = column(d.uniform(0.36, 0.50)) * np.sqrt(1 - thick + 1e-4) + 0.02 * cloud
    density = column(d.uniform(0.15, 0.26))
    image = tissue + femur * (density + 0.05 * (1 - np.square(a)) - 0.05 * v)
    image += tibia * (density - 0.02)
    image += (femur + tibia) * column(d.uniform(0.012, 0.032)) * grain

    # Cortical bone is bright along the edges, most of all under the plateau.
    cortex = column(d.uniform(0.08, 0.16))
    image += cortex * 0.8 * ridge(femur_d + 0.016, 0.014, pixel)
    image += cortex * 0.6 * ridge(tibia_d + 0.016, 0.014, pixel)
    below = v - tibia_top
    plate = tibia * step((a - 0.10) / 0.15)
    image += plate * cortex * 1.1 * ridge(below - 0.02, 0.018, pixel)
    image += (
        plate * cortex * 0.5 * ridge(below - column(d.uniform(0.05, 0.09)) - 0.02 * medial, 0.015, pixel)
    )
    worse = np.where(column(worse_medially), medial, 1 - medial) * step((a - 0.1) / 0.2)
    hard = column(sclerosis) * worse
    image += hard * (tibia * np.exp(-0.5 * np.square((below - 0.03) / 0.05)))
    image += 0.6 * hard * (femur * np.exp(-0.5 * np.square((v - femur_bottom + 0.02) / 0.04)))

    # Patella before the femur, scars of the growth plates, fibula behind the tibia.
    px, py = column(d.normal(0, 0.06)), column(d.uniform(-0.75, -0.45))
    patella_d = np.sqrt(np.square((u - px) / 0.40) + np.square((v - py) / 0.34)) - 1
    image += column(d.uniform(0.0, 0.09)) * inside(patella_d, 0.12) * (1 + 0.15 * grain)
    scar = -column(d.uniform(0.36, 0.46)) + 0.06 * np.cos(5 * u)
    image += 0.06 * femur * ridge(v - scar, 0.014, pixel)
    image += 0.05 * tibia * ridge(v - column(d.uniform(0.30, 0.40)) - 0.04 * np.cos(4 * u), 0.014, pixel)
    fx, fy = -column(d.uniform(0.74, 0.90)), column(d.uniform(0.42, 0.56))
    bow = 0.17 - 0.05 * step((v - fy - 0.25) / 0.3)
    fibula_d = np.hypot(u - fx - 0.10 * (v - fy), 0.9 * (fy + 0.14 - v).clip(0)) - bow
    image += inside(fibula_d, soft) * (0.10 + 0.03 * grain) + 0.06 * ridge(fibula_d + 0.01, 0.014, pixel)

    # Exposure.
    gain, gamma = column(d.uniform(0.75, 1.35)), column(d.uniform(0.75, 1.5))
    image = gain * np.power(image.clip(1e-3, None) / 0.8, gamma) * 0.75
    image = (
        image
        + column(d.uniform(-0.12, 0.12))
        + column(d.normal(0, 0.05)) * x
        + column(d.normal(0, 0.05)) * y
    )
    # The film's shoulder: bone never gets quite as white as lead.
    image = np.minimum(image, 0.65) + 0.22 * (1 - np.exp(-(image - 0.65).clip(0) / 0.22))
    noise = column(d.uniform(0.008, 0.035)) * d.texture(size, 128, 128)

    shade, alpha = _letter(
        marker, right, spurious, centre_x[:, 0, 0], centre_y[:, 0, 0], np.tan(angle[:, 0, 0]), size, overlap
    )
    image = image + alpha * (shade - image)
    core = (v > np.maximum(femur_bottom, plateau - gap - 0.12) - 0.08) & (v < plateau + 0.14)
    core |= (v > femur_bottom) & (v < plateau) & (a < 0.3)
    core &= a < np.maximum(femur_half, tibia_half) + 0.05
    return (image + noise)[:, None], alpha > 0, core


def _letter(d: Draws, right, spurious, joint_x, joint_y, slope, size: int, overlap: bool):
    """Brightness (B, 1, 1) and cover (B, size, size) in 0 .. 1 of the lead letter: the side of the leg.

    It lies above or below the joint, whose line passes ``joint_x``,
    ``joint_y`` with ``slope``, or, with ``overlap``, on it.
    """
    half_height, angle = d.uniform(0.15, 0.23), d.normal(0, 0.22)
    thickness, shade = d.uniform(0.20, 0.29), column(d.uniform(0.92, 1.0))
    left, along, above = d.uniform() < 0.5, d.uniform(), d.uniform() < 0.6
    reach = 1.18 * half_height
    at_x = (1 - 0.9 * half_height - d.uniform(0.02, 0.10)) * np.where(left, -1, 1)
    if overlap:
        at_x = joint_x + (along - 0.5) * 1.1
    joint = joint_y + slope * (at_x - joint_x)
    room_above = (joint - 0.39 - reach) - (reach - 0.98)
    room_below = (0.98 - reach) - (joint + 0.28 + reach)
    above = np.where(above, room_above > 0, room_below < 0)
    at_y = np.where(
        above, reach - 0.98 + along * room_above.clip(0), 0.98 - reach - along * room_below.clip(0)
    )
    if overlap:
        at_y = joint

    alpha = np.zeros((len(spurious), size, size), np.float32)
    x, y = grid(size)
    for letter in "LR":
        rows = np.flatnonzero(spurious & (right == (letter == "R")))
        if len(rows) == 0:
            continue
        h = column(half_height[rows])
        cos, sin = np.cos(column(angle[rows])) / h, np.sin(column(angle[rows])) / h
        dx, dy = x - column(at_x[rows]), y - column(at_y[rows])
        p, q = cos * dx + sin * dy, cos * dy - sin * dx
        distance = np.full(p.shape, np.inf, np.float32)
        for x0, y0, x1, y1 in _STROKES[letter]:
            length = np.hypot(x1 - x0, y1 - y0)
            ex, ey = np.float32((x1 - x0) / length), np.float32((y1 - y0) / length)
            t = ((p - np.float32(x0)) * ex + (q - np.float32(y0)) * ey).clip(0, np.float32(length))
            gap = np.square(p - np.float32(x0) - t * ex) + np.square(q - np.float32(y0) - t * ey)
            np.minimum(distance, gap, out=distance)
        cover = 0.5 + (column(thickness[rows]) - np.sqrt(distance)) * h * np.float32(size / 2)
        alpha[rows] = cover.clip(0, 1)
    alpha[alpha < 0.05] = 0
    return shade, alpha
