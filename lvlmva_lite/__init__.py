"""Teach small vision models right from wrong with words.

``lvlmva_lite`` implements LVLM-VA (Koebler, Kuhn, Thon and Buettner,
arXiv 2512.21985) one module per step, in the order in which data flows:
``datasets``, ``models``, ``sampling``, ``attribution``, ``segmentation``,
``critic``, ``alignment`` and ``metrics``.  ``config`` holds its settings,
``tasks`` what belongs to one set of images, ``pipeline`` the steps in order,
``methods`` LVLM-VA and what it is measured against::

    task = tasks.Knee()
    print(methods.run(task, task.config(seed=1), method="lvlm-va").table())

Importing the package touches neither the network, nor the disk, nor the
random state.
"""

__version__ = "0.1.0"
