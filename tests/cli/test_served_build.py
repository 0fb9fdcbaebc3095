"""What a report says of the build that it asked."""

from types import SimpleNamespace

import pytest

from toolkit import bench, engine
from toolkit.cli import reaching, served_build

PLAN = {"gpu": {"name": "l4"}, "conversion": {"recipe": {"name": "int4"}}}


@pytest.fixture
def said(monkeypatch, tmp_path):
    """Return what is said of a server on a build with these contents of its manifest."""

    def of(**manifest):
        made = SimpleNamespace(**{"build_id": "b1", "plan": PLAN, **manifest}) if manifest else None
        monkeypatch.setattr(engine, "manifest_of", lambda _: made)
        behind = SimpleNamespace(spec=SimpleNamespace(folder=str(tmp_path)))
        monkeypatch.setattr(reaching, "endpoint_behind", lambda _: behind)
        found = served_build.environment_of(SimpleNamespace(url="127.0.0.1:8001"))
        return {name: value for name, value in found.items() if name not in bench.environment()}

    return of


@pytest.mark.parametrize(
    ("model", "called"),
    [
        ({"name": "meta-llama/Llama-3.1-8B-Instruct", "revision": "0e9e39f"}, "meta-llama/Llama-3.1-8B-Instruct"),
        ({"name": "/home/me/tuned", "revision": "local"}, "tuned"),
        ({"name": "..", "path": "/home/me/tuned", "revision": "local"}, "tuned"),
    ],
)
def test_model_card_and_format_are_told_and_no_path(said, model, called):
    expected = {"served_build": "b1", "served_gpu": "l4", "served_model": called, "served_quant": "int4"}

    assert said(model=model) == expected


def test_of_a_build_that_is_not_understood_nothing_is_said(said):
    assert said() == {}
    assert said(model={"name": "x"}, plan={"card": "l4"}) == {}
    assert said(model={"name": "x"}, plan={**PLAN, "gpu": "l4"}) == {}
