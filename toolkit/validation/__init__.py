"""Every offline validator there is, over a folder of manifests: what passed, what failed, what was not looked at."""

from toolkit.validation.examining import Result, catalogue, examine
from toolkit.validation.folder import Folder
from toolkit.validation.secret_shapes import need_none as need_no_secrets
from toolkit.validation.validator import FAILED, NOT_CHECKED, NOTHING, PASSED, Outcome, Problem, Validator

__all__ = [
    "FAILED",
    "NOTHING",
    "NOT_CHECKED",
    "PASSED",
    "Folder",
    "Outcome",
    "Problem",
    "Result",
    "Validator",
    "catalogue",
    "examine",
    "need_no_secrets",
]
