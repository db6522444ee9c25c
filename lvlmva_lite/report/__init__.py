"""The way back from the model to the expert: what a model goes by, in words and numbers a person can read."""

from lvlmva_lite.report.finished_run import FinishedRun, read_run
from lvlmva_lite.report.leaning import JudgedCase, Leaning, Thing, judged_cases, leaning
from lvlmva_lite.report.page import Report, make_report

__all__ = [
    "FinishedRun",
    "JudgedCase",
    "Leaning",
    "Report",
    "Thing",
    "judged_cases",
    "leaning",
    "make_report",
    "read_run",
]
