"""What is read out of Triton's log: lines as tritonserver 2.51 wrote them."""

from toolkit.serve import triton_log
from toolkit.serve.triton_log import Failure

ROUTINE = """\
2026-08-01T03:47:46Z E 5160 server.cc:241] "CudaDriverHelper has not been initialized."
2026-08-01T03:47:46Z I 5160 model_lifecycle.cc:472] "loading: preprocessing:1"
"""
LOAD = "2026-08-01T03:47:48Z E 5178 model_lifecycle.cc:642] \"failed to load 'tensorrt_llm' version 1: Internal: "
REASON = (
    r"""RuntimeError: can't open \"model.xml\"\nsecond line\n\nAt:\n  /r/tensorrt_llm/1/model.py(3): initialize\n"""
)
FAILED = (
    f'{LOAD}{REASON}"\n'
    "2026-08-01T03:47:48Z E 5178 model_repository_manager.cc:724] \"failed to load model 'ensemble': "
    "at least one version must be available under the version policy of model 'ensemble'\"\n"
)


def test_the_first_failure_is_the_cause_of_the_others():
    found = triton_log.failure(ROUTINE + FAILED)

    assert found == Failure(model="tensorrt_llm", reason='RuntimeError: can\'t open "model.xml"')


def test_a_log_without_a_failure_names_nothing():
    assert triton_log.failure(ROUTINE) is None
    assert triton_log.dead_stub(ROUTINE) is None
    assert triton_log.busy_port(ROUTINE) is None


def test_a_port_lost_to_somebody_else_is_found():
    line = "error: failed to start HTTP service: Unavailable - Socket '127.0.0.1:8000' already in use \n"

    assert triton_log.busy_port(ROUTINE + line) == 8000


def test_telling_lines_leave_out_tables_routine_and_what_every_cpu_machine_says():
    table = "+-------+---------+\n| Model | Version |\n\n"
    printed = "Traceback (most recent call last):\n  <frozen importlib._bootstrap>(241): x\n"

    lines = triton_log.telling_lines(ROUTINE + table + printed + FAILED)

    assert [line[:34] for line in lines] == [
        "Traceback (most recent call last):",
        "2026-08-01T03:47:48Z E 5178 model_",
        "2026-08-01T03:47:48Z E 5178 model_",
    ]
    assert lines[1].endswith('can\'t open \\"model.xml\\"')


def test_the_tail_of_a_log_that_is_not_there_is_empty(tmp_path):
    log = tmp_path / "x.log"

    assert triton_log.read_tail(log) == ""
    log.write_text("a" * 10 + "end")
    assert triton_log.read_tail(log, size=3) == "end"


def test_a_container_that_ended_is_told_with_what_gave_up_inside():
    log = "Error: an older one.\nError: The stub died.\nHint: Look.\ntrtk: The container ended with exit code 6.\n"

    assert triton_log.noted(log) == "The container ended with exit code 6. The stub died."
    assert triton_log.noted("Error: printed by a model\n") == ""
