"""What `trtk gpus`, `quants`, `releases` and `models` print: whole JSON documents, tables of 80 columns, exit codes."""

import json

import pytest
from click.testing import CliRunner

from toolkit import gpus, models, quant, releases
from toolkit.cli import main

COMMANDS = ("gpus", "quants", "releases", "models")

L4 = {
    "name": "l4",
    "title": "NVIDIA L4",
    "aliases": [],
    "sm": 89,
    "memory_gib": 24,
    "memory_usable_mib": 22558,
    "is_memory_measured": True,
    "memory_type": "GDDR6",
    "bandwidth_gb_per_s": 300,
    "dense_tflops": {"fp16": 121, "fp16_acc16": 121, "fp8": 242, "int8": 242},
    "nvlink_gb_per_s": 0,
    "pcie": "4.0 x16",
    "tdp_w": 72,
    "ecc": "yes",
    "sm_count": 60,
    "boost_mhz": 2040,
    "l2_mb": 48,
    "sources": [
        "https://github.com/ArcInstitute/evo2/issues/190",
        "https://www.techpowerup.com/gpu-specs/l4.c4091",
        "https://github.com/ai-dynamo/aiconfigurator/blob/095f58a/aic-core/src/aiconfigurator_core/systems/l4.yaml",
    ],
    "confidence": "high",
    "notes": "NVIDIA counts 58 SMs, TechPowerUp 60. At 72 W the sustained clock stays well under boost. "
    "Dense rates are half of NVIDIA's sparse ones. A process sees 22558 MiB (PyTorch's total_memory); 23034 in "
    "nvidia-smi.",
    "compute_capability": "8.9",
}
CPU_CARD = """\
CPU (OpenVINO)
  name                cpu
  also called         host
  memory              host memory
  confidence          high
  sources             https://docs.openvino.ai/2025/api/genai_api/_autosummary/openvino_genai.ContinuousBatchingPipeline.html
  notes               Any x86-64 or Arm machine. Memory and bandwidth are the
                      host's, so none are given here.
  runs with openvino  {quantizations}

"""


def trtk(*arguments):
    return CliRunner(env={"COLUMNS": "80"}).invoke(main, list(arguments))


def document_of(*arguments):
    result = trtk(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_one_gpu_as_json_has_every_field():
    assert document_of("gpus", "NVIDIA L4") == {"gpus": [L4]}


def test_gpus_come_in_the_order_asked_for():
    assert [gpu["name"] for gpu in document_of("gpus", "h100", "a4500", "cpu")["gpus"]] == ["h100-sxm", "a4500", "cpu"]


def test_each_json_document_lists_its_whole_catalogue():
    rooms = {"gpus": gpus, "quants": quant, "releases": releases, "models": models}
    found = {command: [entry["name"] for entry in document_of(command)[command]] for command in rooms}
    outlines = [entry["name"] for entry in document_of("models")["models"] if not entry["is_converted"]]
    assert outlines == ["deepseek", "qwen3_next"]
    found["models"] = [name for name in found["models"] if name not in outlines]
    assert found == {command: [entry.name for entry in room.catalogue()] for command, room in rooms.items()}


def test_a_release_as_json_has_every_field():
    assert document_of("releases")["releases"][1] == {
        "name": "26.06",
        "image": "nvcr.io/nvidia/tritonserver:26.06-trtllm-python-py3",
        "triton": "2.70.0",
        "tensorrt_llm": "1.2.1",
        "tensorrt": "10.14.1.48",
        "cuda": "13.1.0",
        "python": "3.12.3",
        "flows": ["engine", "llmapi"],
        "is_default": False,
        "is_security_floor_met": False,
        "sources": [
            "https://github.com/triton-inference-server/server/blob/main/docs/introduction/compatibility.md",
            "https://github.com/triton-inference-server/server/tree/v2.70.0",
        ],
        "notes": "Same TensorRT-LLM and TensorRT as 26.07.",
    }


def test_a_quantization_as_json_says_where_it_runs():
    (fp8,) = (entry for entry in document_of("quants")["quants"] if entry["name"] == "fp8")
    assert fp8["sms_by_flow"] == {"engine": [89, 90, 100, 103, 120], "llmapi": [89, 90, 100, 103, 120], "openvino": []}
    assert fp8["unverified_sms_by_flow"] == {"engine": [110, 121], "llmapi": [110, 121], "openvino": []}


def test_a_family_as_json_says_its_architectures():
    (llama,) = (entry for entry in document_of("models")["models"] if entry["name"] == "llama")
    assert set(llama) == {"name", "title", "architectures", "notes", "is_converted"}
    assert llama["is_converted"] is True
    assert llama["architectures"] == ["LlamaForCausalLM"]


def test_a_named_gpu_is_shown_as_a_card():
    quantizations = ", ".join(recipe.name for recipe in quant.catalogue() if 0 in recipe.sms_by_flow["openvino"])
    assert trtk("gpus", "cpu").stdout == CPU_CARD.format(quantizations=quantizations)


def test_a_card_says_which_quantizations_run_on_it():
    card = [line.split(None, 3) for line in trtk("gpus", "a4500").stdout.splitlines() if line.startswith("  runs with")]
    assert {words[2]: "fp8" in words[3] for words in card} == {"engine": False, "llmapi": False}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_fits_80_columns_and_breaks_no_name(command):
    result = trtk(command)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    first_words = {line.split()[0] for line in lines if line.strip()}
    assert {entry["name"] for entry in document_of(command)[command]} <= first_words


def test_the_table_of_gpus_has_these_cells():
    rows = {line.split()[0]: line.split()[1:] for line in trtk("gpus").stdout.splitlines() if line.strip()}
    assert rows["cpu"] == ["-", "host", "host", "host", "-", "-", "-", "-"]
    assert rows["rtx-2000-ada"] == ["89", "16", "~15.3", "224", "48", "96", "-", "70"]
    assert rows["b200"] == ["100", "180", "178.4", "7700", "2250", "4500", "9000", "1000"]


def test_the_table_of_quantizations_has_these_cells():
    rows = [line.split() for line in trtk("quants").stdout.splitlines()]
    at = next(index for index, words in enumerate(rows) if words[:2] == ["int4", "engine"])
    assert rows[at : at + 3] == [
        ["int4", "engine", "-", "-", "Y", "?", "Y", "Y", "-", "-", "?", "?"],
        ["llmapi", "-", "-", "Y", "?", "Y", "Y", "-", "-", "-", "-"],
        ["openvino", "Y", "-", "-", "-", "-", "-", "-", "-", "-", "-"],
    ]


def test_the_default_release_is_marked_and_old_ones_are_warned_about():
    rows = {line.split()[0]: line.split()[-1] for line in trtk("releases").stdout.splitlines() if line.strip()}
    assert (rows["26.07"], rows["26.06"], rows["24.07"]) == ("*", "!", "!")


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_an_unknown_gpu_exits_2_and_suggests_the_nearest(flags):
    result = trtk("gpus", "a450", *flags)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "Error: There is no GPU named 'a450'.\nHint: Did you mean a4500 or a40 or a5500? `trtk gpus` lists them all.\n"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_two_examples(command):
    result = trtk(command, "--help")
    assert result.exit_code == 0
    examples = result.stdout.partition("Examples:\n")[2].splitlines()
    assert [line.split()[:2] for line in examples] == [["trtk", command]] * 2
