"""Teach small vision models right from wrong with words.

``lvlmva_lite`` implements LVLM-VA (Koebler, Kuhn, Thon and Buettner,
arXiv 2512.21985) one module per step, in the order in which data flows:
``datasets``, ``models``, ``sampling``, ``attribution``, ``segmentation``,
``critic``, ``alignment`` and ``metrics``.  ``config`` holds its settings,
``tasks`` what belongs to one set of images, ``pipeline`` the steps in order,
``methods`` LVLM-VA and what it is measured against::

    task = tasks.Knee()
    print(methods.run(task, task.config(seed=1), method="lvlm-va").table())

One's own network and images take one call, :func:`align_with_words`.

Importing the package touches neither the network, nor the disk, nor the
random state.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lvlmva_lite.methods.words import AlignmentRefused, align_with_words

__version__ = "0.1.0"

__all__ = ["AlignmentRefused", "align_with_words"]


def __getattr__(name: str) -> Any:
    # Late, so that importing the package, and `lvlmva --help`, take no time.
    if name in __all__:
        from lvlmva_lite.methods import words

        return getattr(words, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
