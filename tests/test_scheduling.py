"""What is costly is made once: the files that share it are one unit of work."""

from tests.scheduling import DEMO, DOCKER, place_of, unit_of

NODES = {
    "tests/bench/test_run.py::test_a": "tests/bench/test_run.py",
    "tests/cli/test_builder.py::test_a[b::c]": DOCKER,
    "tests/docker/test_cpu_image.py::test_a": DOCKER,
    "tests/e2e/test_contract.py::test_a[b]": DEMO,
    "tests/e2e/test_fidelity.py::test_a": DEMO,
    "tests/e2e/test_watching.py::test_a": "tests/e2e/test_watching.py",
    "tests/e2e/test_streams.py::test_a": DEMO,
    "tests/serve/test_server.py::test_a": "tests/serve/test_server.py",
}


def test_the_files_that_share_something_are_one_unit():
    assert {nodeid: unit_of(nodeid) for nodeid in NODES} == NODES


def test_long_units_come_first_and_the_others_stay_in_order():
    beginning = [DEMO, DEMO, DEMO, DOCKER, DOCKER, "tests/e2e/test_watching.py", "tests/serve/test_server.py"]
    assert [unit_of(nodeid) for nodeid in sorted(NODES, key=place_of)] == [*beginning, "tests/bench/test_run.py"]
