"""What others call their models, and reasons that quote them, become no line of their own in any file that is run."""

import dataclasses
import re

import pytest

from tests.deploy.deployments import because, spec_of
from toolkit import deploy
from toolkit.errors import PlanInfeasible


def with_breaks(spec):
    """Return a spec whose every text that comes from elsewhere has a second line."""
    names = ("startup_s", "drain_s", "memory_bytes", "shm_bytes", "cpus")
    reasons = {name: because(getattr(spec.budgets, name).value, "why\nevil: 1") for name in names}
    return dataclasses.replace(
        spec,
        model=dataclasses.replace(spec.model, model="m\nevil: 2", folder="f\nevil: 3", revision="r\nevil: 4", quant="q\nevil: 5"),  # noqa: E501
        gpu=dataclasses.replace(spec.gpu, title="card\nevil: 6"),
        replicas=because(1, "why\nevil: 7"),
        promise=dataclasses.replace(spec.promise, evidence="report\nevil: 8"),
        budgets=dataclasses.replace(spec.budgets, **reasons),
    )  # fmt: skip


@pytest.mark.parametrize("target", sorted(deploy.catalogue()))
def test_a_line_break_in_a_name_begins_no_line_of_a_file(target):
    rendered = 0
    for flow in ("engine", "llmapi", "openvino"):
        for volume in ("hostpath", "pvc"):
            try:
                texts = deploy.render(with_breaks(spec_of(target, flow, volume=volume)))
            except PlanInfeasible:
                continue
            rendered += 1
            broken = [name for name, text in texts.items() if re.search(r"^\s*evil: \d", text, re.MULTILINE)]
            assert [name for name in broken if name != "README.md"] == []
    assert rendered
