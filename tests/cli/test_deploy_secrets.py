"""No secret reaches a file or an argument list of any target, wherever it was lying about."""

import pytest
from click.testing import CliRunner

from tests.cli.test_deploy import built  # noqa: F401 - a fixture
from toolkit import deploy
from toolkit.cli import main

PLANTED = {
    "HF_TOKEN": "hf_" + "Pl4nted0123456789" * 2,
    "HUGGING_FACE_HUB_TOKEN": "hf_" + "Pl4nted9876543210" * 2,
    "OPENAI_API_KEY": "sk-pl4nted-" + "0" * 30,
    "NGC_API_KEY": "nvapi-pl4nted-" + "1" * 40,
    "TRTK_API_KEY": "trtk-0badcafe-" + "k" * 43,
    "OS_PASSWORD": "pl4nted-of-openstack",
    "GF_SECURITY_ADMIN_PASSWORD": "pl4nted-of-grafana",
    "AWS_SECRET_ACCESS_KEY": "pl4nted/of/aws/0123456789",
}
FLOWS = {"engine": {}, "llmapi": {"recipe": "fp8", "gpu": "l4"}, "openvino": {"gpu": "cpu"}}


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A home and an environment full of secrets."""
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    home = tmp_path / "home"
    (home / ".cache" / "huggingface").mkdir(parents=True)
    (home / ".cache" / "huggingface" / "token").write_text(PLANTED["HF_TOKEN"])
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text('{"auths": {"nvcr.io": {"auth": "pl4nted-of-docker"}}}')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(home / ".cache" / "huggingface"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    return CliRunner().invoke(main, ["deploy", *(str(word) for word in words)])


def options_of(flow):
    return ("--image", "registry.example/trtk@sha256:" + "a" * 64) if flow == "openvino" else ()


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("target", sorted(deploy.catalogue()))
def test_no_planted_secret_is_in_any_file_of_any_target(target, flow, built, planted):  # noqa: F811
    engine = built(**FLOWS[flow], **({} if flow == "openvino" else {"flow": flow}))
    done = run(target, engine, *options_of(flow), "--replicas", 1, "-o", planted / "made")
    assert done.exit_code in {0, 2, 3}, done.output  # not every target takes every flow

    files = [path for path in (planted / "made").rglob("*") if path.is_file()]
    texts = [done.output, *(path.read_text() for path in files)]
    assert (len(files) >= 3) == (done.exit_code == 0)
    for secret in (*PLANTED.values(), "pl4nted", "Pl4nted"):
        assert not [text for text in texts if secret in text], secret


@pytest.mark.parametrize("secret", ["HF_TOKEN", "OPENAI_API_KEY", "NGC_API_KEY", "TRTK_API_KEY"])
def test_a_secret_that_was_given_as_a_setting_is_refused_and_nothing_is_written(secret, built, planted):  # noqa: F811
    (planted / "values.yaml").write_text(f"grafana_image: registry.example/x:{PLANTED[secret]}\n")

    done = run("compose", built(), "--replicas", 1, "--values", "values.yaml", "-o", "made")

    assert done.exit_code == 2, done.output
    assert "which nothing that is written may" in done.stderr
    assert PLANTED[secret] not in done.output
    assert not (planted / "made").exists()


def test_every_target_has_a_flow_that_it_takes(built, planted):  # noqa: F811
    for target in deploy.catalogue():
        codes = set()
        for flow, words in FLOWS.items():
            engine = built(**words, **({} if flow == "openvino" else {"flow": flow}))
            codes.add(run(target, engine, *options_of(flow), "--replicas", 1, "-o", planted / target / flow).exit_code)
        assert 0 in codes, target
        assert codes <= {0, 2, 3}
