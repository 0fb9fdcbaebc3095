"""jsonschema: custom resources against the tables of toolkit/deploy/schemas, their pods against Kubernetes' own."""

from __future__ import annotations

import importlib.util

from toolkit.validation import built_in, schemas
from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Validator, not_installed, outcome


def run(folder: Folder) -> Outcome:
    """Validate the objects of which a schema is held here."""
    known = schemas.known()
    found = [one for one in folder.all_objects if (one.api_version, one.kind) in known]
    if not found:
        return Outcome()
    if importlib.util.find_spec("jsonschema") is None or not built_in.is_installed():
        return not_installed("kubernetes-validate or jsonschema", "pip install 'trtk[deploy]'")
    problems = (problem for one in found for problem in schemas.problems(one, known[one.api_version, one.kind]))
    return outcome(len(found), problems, unit="objects")


VALIDATOR = Validator(name="jsonschema", title="custom resources", order=21, run=run)
