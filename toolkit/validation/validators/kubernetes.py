"""kubernetes-validate: built-in kinds against the API's own schemas, no unknown field, no kind that nobody knows."""

from __future__ import annotations

from toolkit.validation import built_in, schemas
from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Validator, not_installed, outcome


def run(folder: Folder) -> Outcome:
    """Validate the objects that no schema of ours describes: the built-in kinds, and those that do not exist."""
    known = schemas.known()
    found = [one for one in folder.all_objects if (one.api_version, one.kind) not in known]
    if not found:
        return Outcome()
    if not built_in.is_installed():
        return not_installed("kubernetes-validate", "pip install 'trtk[deploy]'")
    problems = (problem for one in found for problem in built_in.problems(one.document, one.place))
    return outcome(len(found), problems, unit="objects")


VALIDATOR = Validator(name="kubernetes-validate", title="built-in kinds of Kubernetes", order=20, run=run)
