"""What every target writes passes every validator that is installed here, checkov where somebody put it on the PATH."""

import pytest

from tests.deploy.deployments import KINDS, because, spec_of
from toolkit import deploy, validation
from toolkit.errors import TrtkError

VARIANTS = [
    *((target, flow, {}) for target in sorted(deploy.catalogue()) for flow in KINDS),
    ("kubernetes", "engine", {"volume": "pvc", "autoscale": "keda", "tp": 2}),
    ("kubernetes", "llmapi", {"volume": "oci", "autoscale": "hpa"}),
    ("kubernetes", "engine", {"volume": "pvc", "tp": 16, "nodes": 2}),
    ("helm", "engine", {"volume": "pvc", "autoscale": "keda"}),
    ("dynamo", "llmapi", {"volume": "pvc", "autoscale": "keda", "is_disaggregated": True}),
    ("slurm", "engine", {"tp": 16, "nodes": 2}),
]


def rendered(target, flow, changes):
    """Return the files, or the refusal of a flow that the target does not take."""
    one = {"replicas": because(1)} if target in {"compose", "slurm"} else {}
    volumes = deploy.pick(target).volumes
    try:
        return deploy.render(spec_of(target, flow, **one, **{"volume": volumes[0], **changes}))
    except TrtkError as refused:
        return refused


@pytest.mark.parametrize(("target", "flow", "changes"), VARIANTS, ids=lambda value: str(value or ""))
def test_what_is_written_passes_every_validator(target, flow, changes, tmp_path):
    texts = rendered(target, flow, changes)
    if isinstance(texts, TrtkError):
        assert texts.hint  # not every target takes every flow; it says what would
        assert not changes
        return
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    outcomes = {result.name: result.outcome for result in validation.examine(tmp_path)}

    assert [problem for one in outcomes.values() for problem in one.problems] == []
    assert outcomes["secrets"].checked == len(texts)
    assert outcomes["yamllint"].checked + outcomes["shellcheck"].checked + outcomes["python-hcl2"].checked > 0
