"""Helm: every chart renders with its own values; what comes out is validated with the other objects."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.validation.folder import Folder
from toolkit.validation.validator import Outcome, Problem, Validator, not_installed, outcome


def run(folder: Folder) -> Outcome:
    """Render every chart."""
    if any(one.is_helm_missing for one in folder.rendered):
        return not_installed("helm", "https://helm.sh/docs/intro/install, or pip install helm-python-sdk")

    def found() -> Iterator[Problem]:
        for one in folder.rendered:
            if one.error or not one.files:
                yield Problem(place=one.chart, says=one.error or "it renders nothing")

    return outcome(len(folder.charts), found(), unit="charts")


VALIDATOR = Validator(name="helm template", title="Helm charts", order=35, run=run)
