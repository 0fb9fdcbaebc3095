"""What was planned of a server is what it says of itself."""

import json

import pytest

from tests.e2e.conftest import free_ports, run_trtk

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.engine]


@pytest.fixture(scope="module")
def fresh(place, built):
    """A server that nobody has asked anything: an engine keeps the memory that its largest request ever took."""
    folder, env = place
    engine, _ = built("int4")
    http, grpc, metrics = free_ports(3)
    ports = ("--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics)
    code, out, err = run_trtk("serve", engine, "--name", "fresh", "--detach", "--json", *ports, cwd=folder, env=env)
    assert code == 0, err
    yield json.loads(out)
    code, _, err = run_trtk("stop", "fresh", cwd=folder, env=env)
    assert code == 0, err


def test_the_plan_of_a_live_server_is_right_about_its_cache_and_its_memory(place, fresh):
    folder, env = place

    code, out, err = run_trtk("plan", "--verify", fresh["name"], "--json", cwd=folder, env=env)

    assert code == 0, err
    rows = {row["what"]: row for row in json.loads(out)["rows"]}
    assert rows["tokens_per_block"]["off"] == 0
    assert abs(rows["kv_blocks"]["off"]) < 0.001
    assert abs(rows["process"]["off"]) < 0.25


def test_what_is_verified_fits_80_columns_and_gives_a_verdict(place, fresh):
    folder, env = place

    code, out, err = run_trtk("plan", "--verify", fresh["name"], cwd=folder, env={**env, "COLUMNS": "80"})

    assert code == 0, err
    assert "the plan and the server" in out
    assert "The plan was right within 10 %." in out or "was off by" in out
    assert max(len(line) for line in out.splitlines()) <= 80
