"""What every target writes passes every validator that is installed here.

checkov takes ten seconds to start: it is not on the PATH of the other tests, but in TRTK_TEST_CHECKOV, a folder.
"""

import dataclasses
import os

import pytest

from tests.deploy.deployments import KINDS, NVIDIA, because, spec_of
from toolkit import deploy, validation
from toolkit.errors import TrtkError
from toolkit.validation import programs
from toolkit.validation.folder import Folder
from toolkit.validation.validators import checkov

CHECKOV = os.environ.get("TRTK_TEST_CHECKOV")  # read before a test begins without the settings of who started it
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


def write(texts, folder):
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize(("target", "flow", "changes"), VARIANTS, ids=lambda value: str(value or ""))
def test_what_is_written_passes_every_validator(target, flow, changes, tmp_path, monkeypatch):
    found = programs.found
    # It takes seconds to start, and has a test of its own.
    monkeypatch.setattr(programs, "found", lambda name: None if name == "checkov" else found(name))
    texts = rendered(target, flow, changes)
    if isinstance(texts, TrtkError):
        assert texts.hint  # not every target takes every flow; it says what would
        assert not changes
        return
    write(texts, tmp_path)

    outcomes = {result.name: result.outcome for result in validation.examine(tmp_path)}

    assert [problem for one in outcomes.values() for problem in one.problems] == []
    assert outcomes["secrets"].checked == len(texts)
    assert outcomes["yamllint"].checked + outcomes["shellcheck"].checked + outcomes["python-hcl2"].checked > 0


def test_what_is_written_passes_checkov_but_for_what_has_a_reason(tmp_path, monkeypatch):
    if CHECKOV:
        monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{CHECKOV}")
    if programs.found("checkov") is None:
        pytest.skip(f"checkov is not installed: {checkov.INSTALL}")
    tag = dataclasses.replace(spec_of("kubernetes").container, image=NVIDIA.partition("@")[0])
    tagged = ("kubernetes", "engine", {"volume": "pvc", "container": tag})
    for number, variant in enumerate([*VARIANTS, tagged]):
        texts = rendered(*variant)
        if not isinstance(texts, TrtkError):
            write(texts, tmp_path / str(number))

    found = checkov.run(Folder(tmp_path))

    assert [(one.place, one.says) for one in found.problems] == []
    assert found.checked > 2 * len(VARIANTS)
    assert {reason.split(":")[0] for reason in found.not_checked} >= {"CKV_K8S_43", "CKV_K8S_40"}
