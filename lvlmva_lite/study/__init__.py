"""A study that a class can run in fifteen minutes: do people see what the critic sees?"""

from lvlmva_lite.study.analysis import agreement_table, as_markdown
from lvlmva_lite.study.answers import StudyError, read_answers, recorded_raters, simulated_raters
from lvlmva_lite.study.form import study_page
from lvlmva_lite.study.trials import Trial, study_trials

__all__ = [
    "StudyError",
    "Trial",
    "agreement_table",
    "as_markdown",
    "read_answers",
    "recorded_raters",
    "simulated_raters",
    "study_page",
    "study_trials",
]
