"""Options of `trtk build` and `trtk repo` for what the model repository says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import click

from toolkit.cli.amounts import MEMORY_BYTES, amount
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.specs import BuildPlan, RepositorySettings

F = TypeVar("F", bound=Callable[..., Any])
Settings = dict[str, dict[str, str]]

#: An option → the parameter that it sets in each flow; where a flow is missing, it has no such thing.
PARAMETERS: dict[str, dict[str, str]] = {
    "kv_cache_fraction": {
        "engine": "kv_cache_free_gpu_mem_fraction",
        "llmapi": "kv_cache_config.free_gpu_memory_fraction",
    },
    "kv_cache_tokens": {
        "engine": "max_tokens_in_paged_kv_cache",
        "llmapi": "kv_cache_config.max_tokens",
        "openvino": "max_tokens_in_paged_kv_cache",
    },
    "kv_cache_host_memory": {"engine": "kv_cache_host_memory_bytes", "llmapi": "kv_cache_config.host_cache_size"},
    "kv_cache_reuse": {
        "engine": "enable_kv_cache_reuse",
        "llmapi": "kv_cache_config.enable_block_reuse",
        "openvino": "enable_kv_cache_reuse",
    },
    "chunked_context": {
        "engine": "enable_chunked_context",
        "llmapi": "enable_chunked_prefill",
        "openvino": "enable_chunked_context",
    },
    "scheduler_policy": {
        "engine": "batch_scheduler_policy",
        "llmapi": "scheduler_config.capacity_scheduler_policy",
    },
    "attention_window": {"engine": "max_attention_window_size", "llmapi": "kv_cache_config.max_attention_window"},
    "decoding_mode": {"engine": "decoding_mode"},
    "guided_decoding": {"engine": "guided_decoding_backend", "llmapi": "guided_decoding_backend"},
    "gpu_devices": {"engine": "gpu_device_ids"},
    "lora_host_memory": {"engine": "lora_cache_host_memory_bytes", "llmapi": "peft_cache_config.host_cache_size"},
    "lora_gpu_fraction": {
        "engine": "lora_cache_gpu_memory_fraction",
        "llmapi": "peft_cache_config.device_cache_percent",
    },
}
FLOW_TITLES = {"engine": "a compiled engine", "llmapi": "the LLM API", "openvino": "the CPU engine"}
#: The model of each flow that such options are of, where no other name is asked for.
MODELS = {"engine": "tensorrt_llm", "llmapi": "ensemble", "openvino": "tensorrt_llm"}


def assignments(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Settings:
    """Split MODEL.KEY=VALUE at the first = and the first dot before it."""
    del ctx
    found: Settings = {}
    for value in values:
        name, equals, text = value.partition("=")
        model, dot, key = name.strip().partition(".")
        if not (equals and dot and model and key):
            raise click.BadParameter(f"{value!r} is not MODEL.KEY=VALUE.", param=param)
        found.setdefault(model, {})[key] = text.strip()
    return found


def counts(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """Split MODEL=N."""
    del ctx
    found = {}
    for value in values:
        model, _, text = value.partition("=")
        if not (model and text.isdecimal() and int(text)):
            raise click.BadParameter(f"{value!r} is not MODEL=N with N from 1.", param=param)
        found[model.strip()] = int(text)
    return found


def repository_options(command: F) -> F:
    """Add the options that become settings of the repository's models."""
    for option in reversed(
        (
            click.option("--kv-cache-fraction", type=click.FloatRange(0, 1), help="KV cache: share of what is free."),
            click.option("--kv-cache-tokens", type=click.IntRange(min=1), help="KV cache: tokens, and no more."),
            click.option("--kv-cache-host-memory", metavar="SIZE", help="KV cache: host memory below it, such as 8g."),
            click.option("--kv-cache-reuse/--no-kv-cache-reuse", default=None, help="Prompts share what begins alike."),
            click.option("--chunked-context/--no-chunked-context", default=None, help="Long prompts in pieces."),
            click.option(
                "--scheduler-policy",
                type=click.Choice(["guaranteed_no_evict", "max_utilization"]),
                help="Whether a running request may be paused for another.",
            ),
            click.option("--attention-window", metavar="N[,N…]", help="Tokens that layers look back."),
            click.option("--decoding-mode", metavar="NAME", help="How tokens are chosen, such as lookahead."),
            click.option("--guided-decoding", type=click.Choice(["xgrammar"]), help="Answers inside a grammar."),
            click.option("--lora-gpu-fraction", type=click.FloatRange(0, 1), help="Adapters: share of what is free."),
            click.option("--lora-host-memory", metavar="SIZE", help="Adapters: host memory, such as 1g."),
            click.option("--gpu-devices", metavar="SETS", help="GPUs of each instance: 0,1;2,3."),
            click.option(
                "--instances", callback=counts, multiple=True, metavar="MODEL=N", help="Of a model; may be repeated."
            ),
            click.option("--max-queue-size", type=click.IntRange(min=0), help="Requests that wait; 0: any number."),
            click.option("--max-queue-delay-us", type=click.IntRange(min=0), help="A request waits for others."),
            click.option("--streaming/--no-streaming", default=None, help="Answers in pieces, for whom asks."),
            click.option("--model-name", metavar="NAME", help="Of the LLM API's one model; ensemble."),
            click.option(
                "--set",
                "set_parameter",
                callback=assignments,
                multiple=True,
                metavar="MODEL.KEY=VALUE",
                help="Any parameter that the release knows; may be repeated. `trtk repo --parameters` lists them.",
            ),
        )
    ):
        command = option(command)
    return command


def settings_of(options: Mapping[str, Any], flow: str) -> RepositorySettings:
    """Return what the options say of a flow's repository; parameters by option give way to those with --set."""
    given: Settings = {}
    front = _front(options, flow)
    for option, value in _given(options):
        key = PARAMETERS[option].get(flow)
        if key is None:
            raise PlanInfeasible(f"{dashed(option)} is nothing that {FLOW_TITLES[flow]} has.", hint="Leave it out.")
        given.setdefault(front, {})[key] = _text(option, value, flow)
    for model, values in (options.get("set_parameter") or {}).items():
        given[model] = given.get(model, {}) | values
    _need_of_flow(options, flow)
    return RepositorySettings(
        parameters=given,
        instances=dict(options.get("instances") or {}),
        max_queue_size=options.get("max_queue_size"),
        max_queue_delay_microseconds=options.get("max_queue_delay_us"),
        is_streaming=options.get("streaming") is not False,
        model_name=options.get("model_name") or "",
    )


def _need_of_flow(options: Mapping[str, Any], flow: str) -> None:
    """Refuse what the layout of a flow has no place for."""
    if flow != "llmapi" and options.get("model_name"):
        raise PlanInfeasible("--model-name is of the LLM API's one model; others have theirs.", hint="Leave it out.")
    named = [dashed(option) for option in ("max_queue_size", "max_queue_delay_us") if options.get(option) is not None]
    if options.get("streaming") is False:
        named.append("--no-streaming")
    if flow == "llmapi" and named:
        raise PlanInfeasible(
            f"{named[0]} is nothing that the LLM API's model has: requests go to its engine at once, and it streams.",
            hint="Leave it out.",
        )


def over(settings: RepositorySettings, options: Mapping[str, Any], flow: str) -> RepositorySettings:
    """Return earlier settings with those of the options over them."""
    new = settings_of({"model_name": settings.model_name or None, **_named(options)}, flow)
    models = settings.parameters.keys() | new.parameters.keys()
    merged = {
        model: {**settings.parameters.get(model, {}), **new.parameters.get(model, {})} for model in sorted(models)
    }
    is_asked = options.get("streaming") is not None
    return RepositorySettings(
        parameters=merged,
        instances={**settings.instances, **new.instances},
        max_queue_size=settings.max_queue_size if new.max_queue_size is None else new.max_queue_size,
        max_queue_delay_microseconds=new.max_queue_delay_microseconds
        if new.max_queue_delay_microseconds is not None
        else settings.max_queue_delay_microseconds,
        is_streaming=new.is_streaming if is_asked else settings.is_streaming,
        model_name=new.model_name,
    )


def _named(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "model_name" or value}


def split(settings: RepositorySettings, flow: str) -> tuple[RepositorySettings, tuple[tuple[str, str], ...]]:
    """Return the settings of models, and the keys of model.yaml apart: the plan holds those to its release."""
    if flow != "llmapi":
        return settings, ()
    name = settings.model_name or MODELS[flow]
    if unknown := sorted(settings.parameters.keys() - {name}):
        raise UsageError(f"--set {unknown[0]}.…: the LLM API's repository has one model, {name}.", hint=f"Use {name}.")
    keys = settings.parameters.get(name, {})
    return dataclasses.replace(settings, parameters={}), tuple(keys.items())


def with_settings(made: BuildPlan, settings: RepositorySettings) -> BuildPlan:
    """Return the plan with what was asked of its repository."""
    from toolkit import releases
    from toolkit.plan import serving, set_flags

    settings, keys = split(settings, made.flow)
    if not keys:
        return serving.with_repository(made, settings)
    api = releases.llm_api_of(made.release)
    assert api, "the plan's flow needs it"
    flags = set_flags.apply_keys(made.build_flags, keys, api=api, option="--set")
    return serving.with_repository(made, settings, flags)


def moved(settings: RepositorySettings) -> tuple[RepositorySettings, list[str]]:
    """Return what an engine's settings are for the LLM API, and the names of those that it has nothing for."""
    there = {row["engine"]: row["llmapi"] for row in PARAMETERS.values() if "engine" in row and "llmapi" in row}
    goes: dict[str, str] = {}
    left = [f"instances of {model}" for model in settings.instances]
    for model, values in settings.parameters.items():
        for key, value in values.items():
            if model == MODELS["engine"] and key in there:
                is_policy = key == PARAMETERS["scheduler_policy"]["engine"]
                goes[there[key]] = value.upper() if is_policy else value
            else:
                left.append(f"{model}.{key}")
    queue = ("max_queue_size", "max_queue_delay_microseconds")
    left += [name for name in queue if getattr(settings, name) is not None]
    return RepositorySettings(parameters={MODELS["llmapi"]: goes} if goes else {}), left


def _front(options: Mapping[str, Any], flow: str) -> str:
    name: str = (options.get("model_name") if flow == "llmapi" else None) or MODELS[flow]
    return name


def _given(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for option in PARAMETERS:
        if (value := options.get(option)) is not None:
            yield option, value


def _text(option: str, value: Any, flow: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if option.endswith("_memory"):
        return str(amount(dashed(option), value, MEMORY_BYTES, example="8g"))
    return str(value).upper() if option == "scheduler_policy" and flow == "llmapi" else str(value)


def dashed(option: str) -> str:
    """Return the option as it is typed."""
    return f"--{option.replace('_', '-')}"
