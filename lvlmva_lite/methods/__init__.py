"""LVLM-VA and what it is measured against: one class a method, and one way to run them.

A method registers its class by one line, or by an entry point of the group ``lvlmva_lite.methods``.
"""

from lvlmva_lite.methods.dfr import dfr, l1_regression
from lvlmva_lite.methods.jtt import jtt
from lvlmva_lite.methods.method import Fitted, Method, Supervision, best_trial
from lvlmva_lite.methods.placebo import placebo_masks, shuffle_verdicts
from lvlmva_lite.methods.run import run
from lvlmva_lite.methods.subg import balanced_subset, subg
from lvlmva_lite.registry import METHODS

get, names = METHODS.get, METHODS.names

__all__ = [
    "Fitted",
    "Method",
    "Supervision",
    "balanced_subset",
    "best_trial",
    "dfr",
    "get",
    "jtt",
    "l1_regression",
    "names",
    "placebo_masks",
    "run",
    "shuffle_verdicts",
    "subg",
]
