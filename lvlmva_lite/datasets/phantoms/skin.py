"""Skin phantoms: drawn dermoscopy images with a coloured patch at the rim.

Drawn: skin of several tones with mottling, freckles and fine lines; one
pigmented lesion, its colour from light absorbed by pigment; hairs; dark
corners, white balance, gain and noise of the camera.

Malignancy shows in the lesion's diameter, lopsided outline, ragged border,
blotches and blue-grey or red areas, each a noisy reading of one hidden
severity, so that the classes overlap.

Where they fall short of real dermoscopy:

- There is one lesion per image, near the middle, always pigmented.  The faint
  pink lesions and the hardly visible ones of real collections are missing, and
  so are keratoses, vascular lesions and basal cell carcinomas.
- Pigment network, dots, globules, streaks and regression, by which doctors
  judge, are hinted at by noise; blue-grey and red areas are soft round blobs.
- Gel bubbles, rulers, ink and reflections, themselves known shortcuts, are not
  drawn.
- In real collections patches come from one study with its own camera look, so
  that style gives them away too; here the camera does not depend on the patch.
  Real malignant images hardly ever show a patch; here both kinds exist.
- Patches are flat discs, some with a second disc on top, without pen marks or
  shadows, and lie over hairs.
- Brown skin is drawn by darkening; colours of lesions on dark skin were not
  checked against real images.
"""

from __future__ import annotations

import numpy as np

from lvlmva_lite.datasets.phantoms.scene import Draws, build, column, grid, inside, severity, step
from lvlmva_lite.datasets.shortcut_dataset import ShortcutDataset

CLASS_NAMES = ("benign", "malignant")
GROUP_NAMES = tuple(f"{name}, {kind}" for name in CLASS_NAMES for kind in ("no patch", "patch"))

SEVERITY_GAP = 4.2
"""Distance of the class means of the severity, in standard deviations of a class."""

SKIN_TONES = np.array(
    [[0.93, 0.76, 0.70], [0.90, 0.70, 0.58], [0.88, 0.80, 0.66], [0.76, 0.66, 0.64], [0.80, 0.58, 0.44],
     [0.60, 0.42, 0.32]],
    np.float32,
)  # fmt: skip
"""Pale pink, peach, yellowish, greyish pink, tan, brown: (6, 3) RGB in 0 .. 1."""

PATCH_COLOURS = np.array(
    [[0.95, 0.55, 0.10], [0.92, 0.85, 0.10], [0.10, 0.55, 0.95], [0.35, 0.78, 0.74], [0.20, 0.62, 0.25],
     [0.62, 0.64, 0.68]],
    np.float32,
)  # fmt: skip
"""Orange, yellow, blue, turquoise, green, grey: (6, 3) RGB in 0 .. 1."""

_MELANIN = np.array([0.55, 1.05, 1.45], np.float32)
_HAIRS = 14


def skin_phantom(
    split: str,
    *,
    size: int = 64,
    n: int | None = None,
    marker_rate: tuple[float, float] | None = None,
    overlap: bool = False,
    random_state: int = 0,
) -> ShortcutDataset:
    """Draw dermoscopy images of benign and malignant lesions.

    Parameters
    ----------
    split : "train" (2 000 images), "validation" (500) or "test" (1 200)
        Half of each split is malignant.  In training 90 % of the benign and
        3 % of the malignant images show a patch (``scene.TRAIN_RATES``).  In
        validation and test half of each class does: the four groups are
        equally large, and there is no correlation to exploit.
    size : int, 32 .. 224
        Side in pixels; a larger image shows the same scene with more detail.
    n : int or None
        Number of images, default as above.  The first images of a split are
        the same whatever ``n`` is.
    marker_rate : (float, float) or None
        Share of class 0 and of class 1 that shows a patch, instead of the
        split's own.  (0, 0) gives the clean twin: the same images without.
    overlap : bool
        Let the patch cover part of the lesion instead of lying at the rim.
    random_state : int, not negative
        Seed.  Splits of the same seed have no images in common.

    Returns
    -------
    ShortcutDataset
        images (N, 3, size, size); spurious_masks cover the pixels that the
        patch changes; core_masks the lesion, also where a patch hides it;
        groups are class x {no patch, patch}.

    Raises
    ------
    ValueError : unknown ``split``; ``size``, ``n``, ``marker_rate`` or
        ``random_state`` out of range
    """
    return build(
        _draw,
        split,
        kind=2,
        channels=3,
        size=size,
        n=n,
        marker_rate=marker_rate,
        overlap=overlap,
        random_state=random_state,
        class_names=CLASS_NAMES,
        group_names=GROUP_NAMES,
        name="skin-phantom",
    )


def _draw(anatomy: Draws, marker: Draws, labels, spurious, size: int, overlap: bool):
    d, pixel = anatomy, np.float32(2 / size)
    x, y = grid(size)

    # Signs of disease, each a noisy reading of one severity.
    ill = severity(d, labels, SEVERITY_GAP)

    def sign(mean: float, slope: float, noise: float = 0.9) -> np.ndarray:
        return column((mean + slope * (ill + d.normal(0, noise))).clip(0, None))

    radius = (0.31 + 0.022 * column(ill + d.normal(0, 2.0))).clip(0.15, 0.42)
    lopsided = sign(0.09, 0.055).clip(0, 0.30)
    ragged = sign(0.055, 0.035).clip(0, 0.18)
    blotchy = sign(0.28, 0.18).clip(0, 0.9)
    many_colours = sign(0.22, 0.20).clip(0, 0.9)

    # The outline: an ellipse, harmonics, and a warp that frays it.
    centre_x, centre_y = column(d.uniform(-0.14, 0.14)), column(d.uniform(-0.14, 0.14))
    turn, squash = column(d.uniform(0, np.pi)), column(d.uniform(1.0, 1.4))
    cos, sin = np.cos(turn), np.sin(turn)
    dx, dy = x - centre_x, y - centre_y
    p, q = (cos * dx + sin * dy) / np.sqrt(squash), (cos * dy - sin * dx) * np.sqrt(squash)
    rho = np.sqrt(p * p + q * q) + np.float32(1e-6)
    amplitude, phase = d.normal(0, 1, (8,)), np.exp(1j * d.uniform(0, 2 * np.pi, (8,))).astype(np.complex64)

    def outline(direction: np.ndarray) -> np.ndarray:
        """Radius of the lesion towards complex numbers of modulus 1."""
        length, power = np.ones(direction.shape, np.float32), direction
        for k in range(8):
            weight = lopsided * (0.9, 0.9, 1.0, 0.5, 0, 0, 0, 0)[k]
            weight = weight + ragged * (0, 0, 0.4, 0.5, 0.6, 0.6, 0.5, 0.5)[k]
            length += (0.55 * weight * column(amplitude[:, k])) * (power * column(phase[:, k])).real
            power = power * direction
        return radius * length.clip(0.45, 1.35)

    warp = 0.7 * d.texture(size, 16, 16) + 0.5 * d.texture(size, 36, 36)
    fray = column(d.uniform(0.015, 0.04)) + 0.35 * ragged
    edge = rho - outline((p + 1j * q) / rho) + 0.6 * fray * warp
    blur = column(d.uniform(0.015, 0.09))
    lesion = inside(edge, np.sqrt(blur * blur + np.square(0.6 * pixel)))

    # Pigment: darker inside, with a net and with blotches.
    depth = (-edge / radius).clip(0, 1)
    grain, fine = d.texture(size, 24, 24), d.texture(size, 72, 72)
    net = np.abs(d.texture(size, 34, 34))
    cloud = d.texture(size, 7, 7)
    pigment = column(d.uniform(0.45, 0.95)) * (0.75 + column(d.uniform(0.0, 0.6)) * depth)
    pigment = pigment + 0.10 * grain + 0.07 * fine + column(d.uniform(-0.05, 0.25)) * (0.6 - net) * 0.5
    pigment += blotchy * 0.45 * cloud
    at = d.uniform(0, 2 * np.pi, (3,)), d.uniform(0.15, 0.75, (3,)), d.uniform(0.22, 0.45, (3,))
    spots = []
    for k in range(3):
        far = column(at[1][:, k]) * radius
        sx, sy = far * np.cos(column(at[0][:, k])), far * np.sin(column(at[0][:, k]))
        wide = column(at[2][:, k]) * radius
        spots.append(np.exp(-0.5 * (np.square(p - sx) + np.square(q - sy)) / np.square(wide)))
    pigment += 1.5 * blotchy * spots[0]
    pigment = pigment.clip(0.08, 3.2) * lesion

    # The skin: tone, shading, freckles, fine lines.
    tone = np.square(d.uniform(0, 1, (len(SKIN_TONES),))) ** 2
    tone = (tone / tone.sum(1, keepdims=True)) @ SKIN_TONES
    mottle, lines = d.texture(size, 8, 8), d.texture(size, 60, 24)
    light = 1 + 0.025 * mottle + column(d.uniform(0.0, 0.03)) * lines + 0.02 * d.texture(size, 100, 100)
    freckles = (d.texture(size, 22, 22) - column(d.uniform(1.6, 3.2))).clip(0, 1) * column(
        d.uniform(0, 0.5)
    )
    red = column(d.uniform(0, 0.02)) * d.texture(size, 12, 12)
    absorb = pigment + freckles
    halo = column(d.uniform(0, 0.22)) * np.exp(-0.5 * np.square(rho / (1.5 * radius)))

    planes = []
    veil = 0.85 * many_colours * spots[1] * lesion
    flush = 0.8 * many_colours * spots[2] * lesion * (1 - veil)
    for c in range(3):
        plane = column(tone[:, c]) * light * np.exp(-_MELANIN[c] * absorb)
        plane = plane * (1 + red - halo * 0.5 if c == 0 else 1 - red - halo)
        plane = plane + veil * ((0.36, 0.40, 0.50)[c] - plane)
        plane = plane + flush * ((0.74, 0.38, 0.36)[c] - plane)
        planes.append(plane)
    image = np.stack(planes, 1)

    # Hairs: arcs, some images have none.
    count = (_HAIRS * 1.4 * (d.uniform() - 0.45)).clip(0, _HAIRS)
    course, bend = d.uniform(0, 2 * np.pi), d.normal(0, 0.5, (_HAIRS,))
    angles, offset = d.normal(0, 0.55, (_HAIRS,)), d.uniform(-1.1, 1.1, (_HAIRS,))
    middle, length = d.uniform(-0.7, 0.7, (_HAIRS,)), d.uniform(0.3, 1.2, (_HAIRS,))
    thick, strength = d.uniform(0.004, 0.010), d.uniform(0.4, 0.9)
    hair = np.zeros_like(rho)
    for k in range(_HAIRS):
        rows = np.flatnonzero(count > k)
        if len(rows) == 0:
            break
        way = column(course[rows] + angles[rows, k])
        hx = np.cos(way) * x + np.sin(way) * y - column(middle[rows, k])
        hy = np.cos(way) * y - np.sin(way) * x - column(offset[rows, k])
        curve = column(bend[rows, k])
        away = np.abs(hy - curve * hx * hx) / np.sqrt(1 + np.square(2 * curve * hx))
        cover = (0.5 + (column(thick[rows]) - away) / pixel).clip(
            0, np.minimum(1, 2 * column(thick[rows]) / pixel)
        )
        cover = cover * inside(np.abs(hx) - column(length[rows, k]), 0.1)
        hair[rows] = np.maximum(hair[rows], cover)
    hair_colour = np.array([[0.30, 0.17, 0.10], [0.12, 0.09, 0.08]], np.float32)[
        (d.uniform() < 0.5).astype(int)
    ]
    image += (hair * column(strength))[:, None] * (hair_colour[:, :, None, None] - image)

    # The camera: gain, white balance, dark corners, noise.
    gain = (d.uniform(0.85, 1.12)[:, None] * d.normal(1, 0.035, (3,)))[:, :, None, None]
    far = np.sqrt(x * x + y * y)
    hard = column((d.uniform() < 0.3).astype(np.float32))
    field = column(d.uniform(1.12, 1.32))
    corner = inside(far - field, hard * 0.04 + (1 - hard) * 0.5)
    corner = 1 - (1 - corner) * (hard + (1 - hard) * column(d.uniform(0, 0.6)))
    noise = column(d.uniform(0.005, 0.02)) * d.texture(size, 128, 128)

    ring = np.exp(2j * np.pi * np.arange(64) / 64).astype(np.complex64)[None, None]
    rim = (outline(np.broadcast_to(ring, (len(labels), 1, 64))) + 1.5 * fray + 0.35 * blur) * ring
    rim = (rim.real * np.sqrt(squash) + 1j * rim.imag / np.sqrt(squash)) * (cos + 1j * sin)
    centre = (centre_x + 1j * centre_y)[:, :, 0]
    colour, alpha = _patch(
        marker, spurious, centre, rim[:, 0], field[:, 0, 0] + 0.1 * hard[:, 0, 0] - 0.1, size, overlap
    )
    alpha = np.where(corner > 0.15, alpha, 0)
    image += alpha[:, None] * (colour - image)
    image = image * gain * corner[:, None] + noise[:, None]
    return image, alpha > 0, lesion > 0.25


def _patch(d: Draws, spurious, centre, rim, field, size: int, overlap: bool):
    """Colour (B, 3, size, size) and cover (B, size, size) in 0 .. 1 of the round patch.

    A straight line parts it from the lesion, unless ``overlap``.  ``centre``
    (B, 1) and ``rim`` (B, 64), relative to it, are points of the plane as
    complex numbers; the camera sees up to the radius ``field`` (B,).
    """
    radius, squash, along = d.uniform(0.36, 0.58), d.uniform(0.85, 1.15), d.uniform()
    which, inner = d.uniform(), d.uniform()
    # Sixteen ways to go, tried in turn: the first with enough room, else the roomiest.
    way = np.exp(1j * (2 * np.pi * (d.uniform()[:, None] + 7 * np.arange(16) / 16)))
    lesion_end = (rim[:, None] * way.conj()[:, :, None]).real.max(2)
    view_end = np.minimum(np.abs(way.real) + np.abs(way.imag), field[:, None]) - (centre * way.conj()).real
    room = view_end - lesion_end
    best = np.where((room > 0.45).any(1), (room > 0.45).argmax(1), room.argmax(1))
    rows = np.arange(len(best))
    near = lesion_end[rows, best] + 0.02 + along * (room[rows, best] - 0.42).clip(0)
    if overlap:
        near = (0.1 + 0.4 * along) * np.abs(rim).min(1)
    at = centre[:, 0] + way[rows, best] * (near + radius * np.maximum(squash, 1 / squash))
    at_x, at_y = at.real.astype(np.float32), at.imag.astype(np.float32)

    x, y = grid(size)
    dx, dy = (x - column(at_x)) * column(squash), (y - column(at_y)) / column(squash)
    rho = np.sqrt(dx * dx + dy * dy)
    weave = d.texture(size, 90, 90)
    alpha = (0.5 + (column(radius) - rho) * np.float32(size / 2)).clip(0, 1)
    alpha[alpha < 0.05] = 0
    alpha *= column(spurious)
    pick = (which * len(PATCH_COLOURS)).astype(int)
    shading = 1 + 0.05 * weave - 0.10 * step((rho - column(radius) + 0.06) / 0.06)
    colour = PATCH_COLOURS[pick][:, :, None, None] * (shading * column(d.uniform(0.85, 1.08)))[:, None]
    disc = (column(inner) < 0.2) * inside(rho - 0.5 * column(radius), 0.02)
    second = PATCH_COLOURS[(pick + 1 + (inner * 20).astype(int) % 4) % len(PATCH_COLOURS)]
    colour += disc[:, None] * (second[:, :, None, None] * shading[:, None] - colour)
    return colour, alpha
