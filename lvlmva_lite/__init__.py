"""Teach small vision models right from wrong with words.

``lvlmva_lite`` implements LVLM-VA (Koebler, Kuhn, Thon and Buettner,
arXiv 2512.21985) one module per step, in the order in which data flows:
``datasets``, ``models``, ``sampling``, ``attribution``, ``segmentation``,
``critic``, ``alignment``, ``metrics`` and ``pipeline``.

Importing the package touches neither the network, nor the disk, nor the
random state.
"""

__version__ = "0.1.0"
