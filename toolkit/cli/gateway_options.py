"""Options of `trtk serve` for the OpenAI-compatible endpoint, and the process that they ask for."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from toolkit.cli.serve_options import added

if TYPE_CHECKING:
    from toolkit.gateway.config import GatewayConfig
    from toolkit.serve.targets import Target
    from toolkit.specs import ServeSpec

F = TypeVar("F", bound=Callable[..., Any])
NAME = "openai"
#: Looked for before anything is started.
PACKAGES = ("grpc", "httptools", "prometheus_client", "starlette", "tritonclient", "uvicorn", "uvloop")
NEEDS_OPENAI = ("api_keys", "audit", "audit_prompts", "audit_optional")


def gateway_options(command: F) -> F:
    """Add the options of the OpenAI-compatible endpoint."""
    path = click.Path(path_type=Path, dir_okay=False)
    return added(
        command,
        (
            click.option("--openai", is_flag=True, help="Serve OpenAI's clients too, at /v1."),
            click.option("--openai-host", help="Address of --openai; as --host."),
            click.option("--openai-port", default=9000, show_default=True, help="Port of --openai."),
            click.option("--api-keys", type=path, metavar="FILE", help="Let in only keys that `trtk keys add` made."),
            click.option(
                "--max-requests",
                type=click.IntRange(min=1),
                default=256,
                show_default=True,
                help="Requests of --openai that run at once.",
            ),
            click.option(
                "--max-queue",
                type=click.IntRange(min=0),
                default=256,
                show_default=True,
                help="Requests of each key that may wait for that.",
            ),
            click.option(
                "--request-timeout",
                type=click.FloatRange(min=0, min_open=True),
                default=600.0,
                show_default=True,
                metavar="S",
                help="Longest answer of --openai.",
            ),
            click.option("--audit", type=path, metavar="FILE", help="Record every request of --openai, hash-chained."),
            click.option("--audit-prompts", is_flag=True, help="Record the prompts too."),
            click.option("--audit-optional", is_flag=True, help="Serve on where a request cannot be recorded."),
        ),
    )


def with_gateway(spec: ServeSpec, target: Target, options: dict[str, Any]) -> ServeSpec:
    """Return the server with its gateway, where one is asked for; its configuration is written when it starts."""
    if not options["openai"]:
        _need_openai(options)
        return spec
    from toolkit.serve.listening import in_url, reached_at
    from toolkit.specs import Companion

    _need_installed()
    config = config_of(spec, target, options)
    url = f"http://{in_url(reached_at(config.host))}:{config.port}"
    companion = Companion(
        name=NAME,
        argv=(sys.executable, "-m", "toolkit.gateway", str(config_path(spec.name))),
        ready_url=f"{url}/health/ready",
        url=f"{url}/v1",
        ports={"--openai-port": config.port},
    )
    leftovers = (*spec.leftovers, str(config_path(spec.name)))
    return dataclasses.replace(spec, companions=(companion, *spec.companions), leftovers=leftovers)


def write_config(spec: ServeSpec, target: Target, options: dict[str, Any]) -> None:
    """Write what the gateway reads when it starts."""
    if options["openai"]:
        from toolkit import files, specs

        files.write_json(config_path(spec.name), specs.to_json(config_of(spec, target, options)))


def config_path(name: str) -> Path:
    """Return where a server's gateway finds its configuration."""
    from toolkit import workspace

    return (workspace.state_dir() / "gateways" / f"{workspace.slug(name)}.json").absolute()


def config_of(spec: ServeSpec, target: Target, options: dict[str, Any]) -> GatewayConfig:
    """Return the gateway that was asked for."""
    from toolkit.gateway.config import GatewayConfig, Limits
    from toolkit.serve import ports
    from toolkit.serve.listening import in_url, reached_at

    host = options["openai_host"] or spec.host
    _need_keys(host, options)
    models, digests = _models(spec, target)
    return GatewayConfig(
        host=host,
        port=options["openai_port"],
        triton_grpc=f"{in_url(reached_at(spec.host))}:{spec.grpc_port}",
        triton_http=ports.triton_http_url(spec),
        models=models,
        created=int(time.time()),
        digests=digests,
        limits=Limits(
            running=options["max_requests"], waiting=options["max_queue"], request_s=options["request_timeout"]
        ),
        api_keys=str(_key_file(options["api_keys"])) if options["api_keys"] else None,
        audit=_audit(options),
        drain_s=spec.exit_timeout_s / 2,
        pool=target.pool,
    )


def _models(spec: ServeSpec, target: Target) -> tuple[dict[str, str], dict[str, str]]:
    """Return what clients can name, as Triton calls it, and the hash of each one's manifest."""
    if target.pool is not None:
        pooled = target.pool["models"]
        return {one["name"]: one["name"] for one in pooled}, {one["name"]: one["artefact"] for one in pooled}
    digest = _digest(spec)
    return {target.name: _front_model(spec)}, {target.name: digest} if digest else {}


def _front_model(spec: ServeSpec) -> str:
    from toolkit.errors import UsageError

    if not spec.probe_model:
        raise UsageError(
            f"{spec.repository} has no model that takes text and makes text: nothing for --openai to ask.",
            hint="Leave --openai out, or serve a folder that `trtk build` made.",
        )
    return spec.probe_model


def _key_file(path: Path) -> Path:
    from toolkit.gateway import keys

    keys.read(path)
    return path.absolute()


def _audit(options: dict[str, Any]) -> Any:
    from toolkit.gateway.config import Audit

    if options["audit"] is None:
        return None
    return Audit(
        path=str(options["audit"].absolute()),
        has_prompts=options["audit_prompts"],
        is_required=not options["audit_optional"],
    )


def _digest(spec: ServeSpec) -> str:
    """Return what names the artefact in the audit log: the hash of its manifest, which holds every file's hash."""
    from toolkit import files

    manifest = Path(spec.folder) / "manifest.json"
    return files.sha256_file(manifest) if spec.folder and manifest.is_file() else ""


def _need_installed() -> None:
    from importlib.util import find_spec

    from toolkit.errors import MissingError

    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise MissingError(
            f"--openai needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            hint="pip install 'trtk[gateway]'",
        )


def _need_openai(options: dict[str, Any]) -> None:
    from toolkit.errors import UsageError

    asked = [name for name in NEEDS_OPENAI if options[name]]
    if asked:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise UsageError(f"{named} is for the OpenAI-compatible endpoint.", hint="Add --openai.")


def _need_keys(host: str, options: dict[str, Any]) -> None:
    from toolkit.errors import UsageError
    from toolkit.serve.listening import is_loopback

    if is_loopback(host):
        return
    if not options["allow_remote"]:
        raise UsageError(
            f"--openai would listen on {host}, where other machines reach it.",
            hint="Add --allow-remote and --api-keys FILE, or leave --openai-host out.",
        )
    if not options["api_keys"]:
        raise UsageError(
            f"--openai on {host} needs keys: whoever reaches it could use it.",
            hint="trtk keys add NAME makes one; then --api-keys FILE.",
        )
