"""A repository as NVIDIA's own templates give it, written by hand: every key of the template, filled or not."""

from tests.machine.test_probing import PARAMETERS

#: What fill_template.py is usually given; the rest stays as it was.
FILLED = {
    "max_beam_width": "1",
    "gpt_model_type": "inflight_fused_batching",
    "gpt_model_path": "/engines/llama",
    "kv_cache_free_gpu_mem_fraction": "0.9",
    "batch_scheduler_policy": "max_utilization",
    "enable_kv_cache_reuse": "True",
    "FORCE_CPU_ONLY_INPUT_TENSORS": "no",
    "executor_worker_path": "/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker",
    "tokenizer_dir": "/engines/llama",
}
#: Without a placeholder: a template that somebody cleaned.
CLEAN = {**FILLED, "xgrammar_tokenizer_info_path": "", "guided_decoding_backend": ""}
BLS_PYTHON = 'client = grpcclient.InferenceServerClient(url="localhost:8001")\n'


def parameters(values):
    """Write parameters as the templates do, over several lines."""
    return "".join(
        f'parameters: {{\n  key: "{key}"\n  value: {{\n    string_value: "{value}"\n  }}\n}}\n'
        for key, value in values.items()
    )


def tensors(kind, *rows):
    """Write tensors as `name TYPE dims [optional]`."""
    made = []
    for row in rows:
        name, data_type, dims, *optional = row.split()
        flag = "\n    optional: true" * bool(optional)
        made.append(f'  {{\n    name: "{name}"\n    data_type: TYPE_{data_type}\n    dims: {dims}{flag}\n  }}')
    return f"{kind} [\n" + ",\n".join(made) + "\n]\n"


def engine(values, batch=64):
    """Return tensorrt_llm/config.pbtxt."""
    return (
        f'name: "tensorrt_llm"\nbackend: "tensorrtllm"\nmax_batch_size: {batch}\n\n'
        "model_transaction_policy {\n  decoupled: true\n}\n\ndynamic_batching {\n"
        f"    preferred_batch_size: [ {batch} ]\n    max_queue_delay_microseconds: 0\n"
        "    default_queue_policy: { max_queue_size: 0 }\n}\n\n"
        + tensors("input", "input_ids INT32 [-1] optional", "input_lengths INT32 [1]", "request_output_len INT32 [1]")
        + tensors("output", "output_ids INT32 [-1,-1]", "sequence_length INT32 [-1]", "context_logits FP32 [-1,-1]")
        + "instance_group [\n  {\n    count: 1\n    kind : KIND_CPU\n  }\n]\n"
        + parameters(values)
    )


def python(name, inputs, outputs, values, batch=64):
    """Return the config.pbtxt of a Python model."""
    decoupled = "model_transaction_policy {\n  decoupled: true\n}\n" * (name == "tensorrt_llm_bls")
    return (
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: {batch}\n{decoupled}'
        + tensors("input", *inputs)
        + tensors("output", *outputs)
        + parameters(values)
    )


def ensemble(batch=64):
    """Return ensemble/config.pbtxt, with three tensors instead of thirty."""
    steps = {
        "preprocessing": (
            {"QUERY": "text_input", "REQUEST_OUTPUT_LEN": "max_tokens"},
            {"INPUT_ID": "_INPUT_ID", "REQUEST_INPUT_LEN": "_LEN", "REQUEST_OUTPUT_LEN": "_OUTPUT_LEN"},
        ),
        "tensorrt_llm": (
            {"input_ids": "_INPUT_ID", "input_lengths": "_LEN", "request_output_len": "_OUTPUT_LEN"},
            {"output_ids": "_TOKENS_BATCH", "sequence_length": "_SEQUENCE_LENGTH"},
        ),
        "postprocessing": (
            {"TOKENS_BATCH": "_TOKENS_BATCH", "SEQUENCE_LENGTH": "_SEQUENCE_LENGTH"},
            {"OUTPUT": "text_output"},
        ),
    }
    made = []
    for model, (inputs, outputs) in steps.items():
        maps = [f'input_map {{ key: "{key}" value: "{value}" }}' for key, value in inputs.items()]
        maps += [f'output_map {{ key: "{key}" value: "{value}" }}' for key, value in outputs.items()]
        made.append(f'{{ model_name: "{model}" model_version: -1\n' + "\n".join(maps) + "}")
    return (
        f'name: "ensemble"\nplatform: "ensemble"\nmax_batch_size: {batch}\n'
        + tensors("input", "text_input STRING [1]", "max_tokens INT32 [1]")
        + tensors("output", "text_output STRING [-1]")
        + f"ensemble_scheduling {{ step [\n{', '.join(made)}\n] }}\n"
    )


def write(folder, values=None, *, template=False, batch=64):
    """Write the five models; with TEMPLATE, what VALUES lacks is left as the template has it."""
    given = dict(CLEAN if values is None else values)
    if template:
        given = {key: given.get(key, f"${{{key}}}") for key in PARAMETERS}
    tokenizer = {"tokenizer_dir": "/engines/llama"}
    texts = {
        "preprocessing": python(
            "preprocessing",
            ("QUERY STRING [1]", "REQUEST_OUTPUT_LEN INT32 [1]"),
            ("INPUT_ID INT32 [-1]", "REQUEST_INPUT_LEN INT32 [1]", "REQUEST_OUTPUT_LEN INT32 [-1]"),
            {**tokenizer, "add_special_tokens": "True", "multimodal_model_path": ""},
            batch,
        ),
        "tensorrt_llm": engine(given, batch),
        "postprocessing": python(
            "postprocessing",
            ("TOKENS_BATCH INT32 [-1,-1]", "SEQUENCE_LENGTH INT32 [-1]"),
            ("OUTPUT STRING [-1]",),
            {**tokenizer, "skip_special_tokens": "True"},
            batch,
        ),
        "ensemble": ensemble(batch),
        "tensorrt_llm_bls": python(
            "tensorrt_llm_bls",
            ("text_input STRING [1]", "max_tokens INT32 [1]"),
            ("text_output STRING [-1]",),
            {"accumulate_tokens": "False", "tensorrt_llm_model_name": "tensorrt_llm"},
            batch,
        ),
    }
    for model, text in texts.items():
        (folder / model / "1").mkdir(parents=True)
        (folder / model / "config.pbtxt").write_text(text)
    library = folder / "tensorrt_llm_bls" / "1" / "lib"
    library.mkdir()
    (library / "triton_decoder.py").write_text(BLS_PYTHON)
    return folder


LLM_API_CONFIG = (
    'name: "tensorrt_llm"\nbackend: "python"\nmax_batch_size: 0\nmodel_transaction_policy { decoupled: true }\n'
    + tensors(
        "input", "text_input STRING [-1]", "streaming BOOL [1] optional", "sampling_param_max_tokens INT32 [1] optional"
    )
    + tensors("output", "text_output STRING [-1]")
    + "instance_group [ { count: 1 kind: KIND_CPU } ]\n"
)
LLM_API_YAML = """\
model: TinyLlama/TinyLlama-1.1B-Chat-v1.0
backend: "pytorch"
tensor_parallel_size: 1
kv_cache_config:
  free_gpu_memory_fraction: 0.9
triton_config:
  max_batch_size: 0
  decoupled: true
"""


def write_llm_api(folder, config=LLM_API_CONFIG, settings=LLM_API_YAML):
    """Write NVIDIA's one model around the LLM API."""
    version = folder / "tensorrt_llm" / "1"
    version.mkdir(parents=True)
    (folder / "tensorrt_llm" / "config.pbtxt").write_text(config)
    (version / "model.yaml").write_text(settings)
    return folder
