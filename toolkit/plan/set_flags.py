"""`--set-flag NAME=VALUE`: a single flag of trtllm-build, or key of model.yaml, against what the release accepts."""

from __future__ import annotations

from toolkit.errors import UnknownName, UsageError
from toolkit.specs import LISTS, SWITCH, BuildFlag, BuildTool, Choice, GpuSpec, LlmApi

#: Flags that belong to whoever runs the command.
OF_THE_BUILDER = {
    "checkpoint_dir", "output_dir", "model_config", "build_config", "model_cls_file", "model_cls_name",
    "input_timing_cache", "output_timing_cache", "visualize_network", "dry_run", "strip_plan", "log_level",
}  # fmt: skip
#: Flags that have an option of their own, because other files must say the same.
WITH_OPTIONS = {
    "max_batch_size": "--max-batch-size",
    "max_seq_len": "--max-seq-len",
    "max_num_tokens": "--max-num-tokens",
    "speculative_decoding_mode": "--speculative",
    "max_draft_len": "--max-draft-len",
    "lora_dir": "--lora-dir",
    "lora_plugin": "--lora-dir",
    "lora_target_modules": "--lora-dir",
    "max_lora_rank": "--max-lora-rank",
    "gather_context_logits": "--gather-logits",
    "gather_generation_logits": "--gather-logits",
    "gather_all_token_logits": "--gather-logits",
    "workers": "--workers",
    "tensor_parallel_size": "--tp",
    "pipeline_parallel_size": "--pp",
    "moe_expert_parallel_size": "--ep",
    "enable_lora": "--lora-dir",
    "lora_config.lora_dir": "--lora-dir",
    "lora_config.lora_target_modules": "--lora-dir",
    "lora_config.max_lora_rank": "--max-lora-rank",
}
#: What Triton's backend batches in flight with: another value compiles, and is not served.
OF_THE_SERVER = {"kv_cache_type": "paged", "paged_kv_cache": "enable", "remove_input_padding": "enable"}
#: That attention kernels take.
BLOCK_SIZES = ("8", "16", "32", "64", "128")
#: Keys of model.yaml that the served folder and the repository decide.
OF_THE_REPOSITORY = {"model", "tokenizer", "backend", "triton_config.decoupled", "triton_config.max_batch_size"}
ASKED = "as asked with --set-flag"
#: What a key takes, where its kind alone does not say it.
KINDS = {"integer": "a whole number", "integers": "whole numbers with commas between them", "texts": "words"}


def apply(
    flags: tuple[Choice, ...], asked: tuple[tuple[str, str], ...], *, tool: BuildTool, gpu: GpuSpec
) -> tuple[Choice, ...]:
    """Return FLAGS with what was asked in the place of what was chosen; raises UsageError for what cannot be set."""
    made = {flag.name: flag for flag in flags}
    for name, value in asked:
        _need_free(name)
        if name not in tool.flags:
            raise UnknownName(f"flag of trtllm-build {tool.name}", name, tool.flags)
        _need_value(name, value, tool.flags[name])
        _need_servable(name, value)
        if gpu.sm in tool.flags[name].refused_sms and value != "disable":
            raise UsageError(
                f"trtllm-build refuses --{name} {value} on sm_{gpu.sm}, and {gpu.title} is one.",
                hint=f"Leave --set-flag {name} out.",
            )
        instead = f"; the plan had {made[name].value}: {made[name].reason}" if name in made else ""
        shown = "" if tool.flags[name].kind == SWITCH else value
        made[name] = Choice(name=name, value=shown, reason=ASKED + instead)
    _settle_profiles(made, {name for name, _ in asked})
    return tuple(made.values())


def _need_servable(name: str, value: str) -> None:
    if value != OF_THE_SERVER.get(name, value):
        raise UsageError(
            f"--{name} {value} compiles an engine that cannot batch requests in flight, and Triton serves no other.",
            hint=f"Leave --set-flag {name} out.",
        )
    if name == "tokens_per_block" and value not in BLOCK_SIZES:
        raise UsageError(f"--{name} cannot be {value}.", hint=f"Attention kernels take {', '.join(BLOCK_SIZES)}.")


def _settle_profiles(made: dict[str, Choice], asked: set[str]) -> None:
    """Several profiles and one best size exclude one another: the plan's own choice gives way."""
    if "opt_num_tokens" not in made or made["multiple_profiles"].value != "enable":
        return
    if {"opt_num_tokens", "multiple_profiles"} <= asked:
        raise UsageError(
            "multiple_profiles=enable and opt_num_tokens exclude one another: trtllm-build refuses them together.",
            hint="Leave one of the two out.",
        )
    if "opt_num_tokens" in asked:
        reason = "opt_num_tokens was asked for, and the two exclude one another"
        made["multiple_profiles"] = Choice(name="multiple_profiles", value="disable", reason=reason)
    else:
        del made["opt_num_tokens"]


def _need_free(name: str) -> None:
    if name in OF_THE_BUILDER:
        raise UsageError(f"--set-flag {name}: trtk sets it itself.", hint=f"Leave --set-flag {name} out.")
    if name in WITH_OPTIONS:
        option = WITH_OPTIONS[name]
        raise UsageError(
            f"--set-flag {name}: other files must say the same, so it has an option of its own.", hint=f"Use {option}."
        )


def _need_value(name: str, value: str, flag: BuildFlag) -> None:
    if flag.kind == SWITCH:
        if value not in {"", "enable"}:
            raise UsageError(
                f"--{name} takes no value, and {value!r} was given.", hint=f"Try --set-flag {name}=enable."
            )
        return
    words = value.split() if flag.kind in LISTS else [value]
    if flag.choices and (not words or not set(words) <= set(flag.choices)):
        raise UsageError(f"--{name} cannot be {value!r}.", hint=f"It takes {', '.join(flag.choices)}.")
    is_number = value.isdecimal() and (int(value) > 0 or flag.default == "0")
    if flag.kind == "integer" and not is_number:
        raise UsageError(
            f"--{name} takes a whole number, and {value!r} was given.",
            hint=f"Try --set-flag {name}={flag.default or 1}.",
        )
    if not value:
        raise UsageError(f"--{name} needs a value.", hint=f"Try --set-flag {name}=VALUE.")


def apply_keys(
    keys: tuple[Choice, ...], asked: tuple[tuple[str, str], ...], *, api: LlmApi, option: str = "--set-flag"
) -> tuple[Choice, ...]:
    """Return the keys of model.yaml with what was asked; raises UsageError for what the release's LLM API refuses."""
    made = {key.name: key for key in keys}
    for name, value in asked:
        if name in OF_THE_REPOSITORY:
            raise UsageError(f"{option} {name}: trtk sets it itself.", hint=f"Leave {option} {name} out.")
        _need_free(name)
        if name not in api.keys:
            raise UnknownName(f"key of the LLM API {api.name} that trtk writes", name, api.keys)
        _need_key_value(name, value, api)
        instead = f"; the plan had {made[name].value}: {made[name].reason}" if name in made else ""
        made[name] = Choice(name=name, value=value, reason=f"as asked with {option}{instead}")
    return tuple(made.values())


def _need_key_value(name: str, value: str, api: LlmApi) -> None:
    fine = {
        "integer": value.isdecimal(),
        "integers": all(part.isdecimal() for part in value.split(",")),
        "boolean": value in {"true", "false"},
        "fraction": value.replace(".", "", 1).isdecimal() and 0 < float(value) <= 1,
        "choice": value in api.choices.get(name, ()),
    }.get(api.keys[name], bool(value))
    if not fine:
        takes = (
            ", ".join(api.choices[name]) if name in api.choices else KINDS.get(api.keys[name], f"a {api.keys[name]}")
        )
        raise UsageError(f"{name} cannot be {value!r}.", hint=f"It takes {takes}.")
