"""The real tritonserver of the nvidia-pytriton wheel, on this machine's CPU: for development, tests and rehearsal."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from pathlib import Path

from toolkit import files, workspace
from toolkit.errors import MissingError, UsageError
from toolkit.serve import libpython, listening, ports, targets
from toolkit.serve.backend import (
    MARKER,
    SECRET_HEADER,
    STOP_FILE,
    Backend,
    Identity,
    Launch,
    shm_prefix,
    stop_file,
    triton_id,
)
from toolkit.specs import Progress, ServeSpec

WHEEL = "nvidia-pytriton"
INSTALL_HINT = "Install it with `pip install 'trtk[cpu]'`."
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
#: Importing an inference library and compiling a model happen before a stub answers; Triton's own 30 s is too short.
STUB_TIMEOUT_S = 900
NOT_ONE_WORD = re.compile(r"""[\s"'`$&|;<>()*?\[\]{}!#\\]""")
#: Reached by anyone on this machine in 2.51 otherwise: they can map memory, write files (CVE-2025-23319 and kin) and,
#: where models are loaded on demand, bring code of their own.
CLOSED_APIS = "model-repository,shared-memory,trace,logging"


def launch(spec: ServeSpec, identity: Identity) -> Launch:
    """Say the command line and the environment; nothing is written."""
    root = _server_root()
    python_dir = str(Path(sys.executable).parent)
    libraries = [str(folder) for folder in libpython.folders()] + _split(os.environ.get("LD_LIBRARY_PATH"))
    environment = {
        MARKER: identity.server_id,
        STOP_FILE: str(stop_file(identity.server_id)),
        # The stub embeds the first `python3` of PATH, which puts it into this virtual environment. It is isolated:
        # PYTHONPATH, other PYTHON* variables and the user's site-packages mean nothing to it.
        "PATH": os.pathsep.join([python_dir, *_split(os.environ.get("PATH"))]),
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
    }
    if targets.about_of(Path(spec.repository)).get("is_orchestrated"):
        environment["TRTLLM_ORCHESTRATOR"] = "1"
    return Launch(argv=(str(root / "bin" / "tritonserver"), *_flags(spec, identity)), environment=environment)


def _flags(spec: ServeSpec, identity: Identity) -> list[str]:
    closed = f"{CLOSED_APIS}:{SECRET_HEADER}={identity.secret}"
    http_host, http_port = ports.triton_http(spec)
    return [
        f"--id={triton_id(identity.server_id)}",
        f"--model-repository={spec.repository}",
        f"--model-control-mode={'explicit' if spec.is_pool else 'none'}",
        # In a pool one model that does not load must not make the others' server look broken.
        f"--strict-readiness={'false' if spec.is_pool else 'true'}",
        "--exit-on-error=true",
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={max(1, round(spec.exit_timeout_s))}",
        "--model-load-thread-count=2",
        f"--http-address={http_host}",
        f"--http-port={http_port}",
        "--http-thread-count=4",
        f"--http-restricted-api={closed}",
        f"--grpc-address={spec.host}",
        f"--grpc-port={spec.grpc_port}",
        f"--grpc-restricted-protocol={closed}",
        f"--metrics-address={spec.host}",
        f"--metrics-port={spec.metrics_port}",
        "--allow-gpu-metrics=false",
        "--allow-sagemaker=false",
        "--allow-vertex-ai=false",
        "--pinned-memory-pool-byte-size=0",
        "--log-format=ISO8601",
        "--trace-config=level=OFF",
        f"--backend-directory={_backend_root()}",
        f"--backend-config=python,stub-timeout-seconds={STUB_TIMEOUT_S}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix(identity.server_id)}",
    ]


def check(spec: ServeSpec) -> None:
    """Refuse what this backend cannot run, and, unless asked in so many words, to be reached from other machines."""
    _need_cpu_engine(spec)
    _need_plain_path(spec.repository, hint="Move it, or rename the folder")
    listening.need_loopback(spec, why="the embedded Triton 2.51 is older than the security floor (26.07)")


def _need_plain_path(path: str, *, hint: str) -> None:
    """Refuse a path that is not one word to the shell: Triton starts its Python processes with a line for bash."""
    if found := NOT_ONE_WORD.search(path):
        raise UsageError(
            f"Triton's Python processes cannot be started from {path!r}: {found[0]!r} means something to the shell.",
            hint=f"{hint}, so that its path has none of these.",
        )


def _need_cpu_engine(spec: ServeSpec) -> None:
    if not spec.folder or spec.kind in targets.CPU_KINDS:
        return
    found = targets.artefact(Path(spec.folder))
    engine = "a bundle, whose engine is compiled on the target," if found.is_deferred else "an engine"
    raise MissingError(
        f"{spec.folder} holds {engine} for {found.gpu}; the embedded server runs on the CPU.",
        hint=f"Serve it on a machine with {found.gpu}: --backend docker; here: trtk build demo --gpu cpu",
    )


def prepared(spec: ServeSpec, progress: Progress) -> ServeSpec:
    """Make what the server needs, as `prepare` does; nothing in the spec is left to be decided."""
    del progress
    prepare()
    return spec


def prepare() -> None:
    """Make the backend directory in the cache: Triton wants a stub of the running Python beside its library."""
    root = _server_root()
    if shutil.which("bash") is None:
        raise MissingError(
            "Triton starts its Python processes with bash, which is not installed.", hint="Install bash."
        )
    _need_visible_packages(root)
    stub = root / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    if not stub.is_file():
        raise MissingError(f"{WHEEL} has no Python backend for Python {PYTHON}.", hint="Use Python 3.10, 3.11 or 3.12.")
    target = _prepared_dir()
    _need_plain_path(str(target), hint="Set TRTK_CACHE to another folder")
    if not target.is_dir():
        _make_whole(target, root, stub)
    _need_stub_runs(_backend_root() / "python" / stub.name)


def _need_visible_packages(root: Path) -> None:
    import site

    if root.is_relative_to(site.getusersitepackages()):
        raise MissingError(
            f"trtk's packages are in {site.getusersitepackages()}, which Triton's Python processes do not see.",
            hint="Install into a virtual environment: python3 -m venv .venv && .venv/bin/pip install 'trtk[cpu]'",
        )


def _make_whole(target: Path, root: Path, stub: Path) -> None:
    with files.disk_errors_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            python = temporary / "pytriton" / "tritonserver" / "backends" / "python"
            python.mkdir(parents=True)
            for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
                shutil.copyfile(root / "backends" / "python" / name, python / name)
            shutil.copyfile(stub, python / stub.name)
            (python / stub.name).chmod(0o755)
            # The libraries' RPATH is $ORIGIN/../../../../nvidia_pytriton.libs: the same depth as in the wheel.
            (temporary / "nvidia_pytriton.libs").symlink_to(root.parents[1] / "nvidia_pytriton.libs")
            temporary.chmod(0o755)
            temporary.rename(target)
        except OSError:
            if not target.is_dir():  # else another start was faster, with the same content
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _need_stub_runs(stub: Path) -> None:
    missing = _missing_library(stub)
    if missing == libpython.LIBRARY and libpython.fetch():
        missing = _missing_library(stub)
    if missing:
        raise MissingError(
            f"Triton's Python backend needs {missing}, which is not on this machine.",
            hint=f"On Debian and Ubuntu: apt-get install libpython{PYTHON}; elsewhere use a Python built with "
            "--enable-shared.",
        )


def _missing_library(stub: Path) -> str | None:
    """Return the shared library without which the stub does not start."""
    import subprocess

    environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(str(folder) for folder in libpython.folders())}
    done = subprocess.run([str(stub)], env=environment, check=False, capture_output=True, text=True)
    if "error while loading shared libraries" not in done.stderr:
        return None
    return done.stderr.split("shared libraries:")[1].split(":")[0].strip()


def _server_root() -> Path:
    found = importlib.util.find_spec("pytriton")
    root = Path(found.origin).parent / "tritonserver" if found and found.origin else None
    if root and os.access(root / "bin" / "tritonserver", os.X_OK):
        return root
    machine = f"{platform.system()} on {platform.machine()}"
    if sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"}:
        raise MissingError(
            f"The embedded tritonserver is made for Linux on x86-64 and arm64, not for {machine}.",
            hint="Use a Linux machine or a Linux virtual machine.",
        )
    raise MissingError(f"The embedded tritonserver (the wheel {WHEEL}) is not installed.", hint=INSTALL_HINT)


def _prepared_dir() -> Path:
    # The path is part of the key, because the libraries stay where the wheel is.
    where = files.sha256_text(str(_server_root()))[:8]
    return (workspace.cache_dir() / "triton" / f"{importlib.metadata.version(WHEEL)}-py{PYTHON}-{where}").absolute()


def _backend_root() -> Path:
    return _prepared_dir() / "pytriton" / "tritonserver" / "backends"


def _split(paths: str | None) -> list[str]:
    return [path for path in (paths or "").split(os.pathsep) if path]


BACKEND = Backend(
    name="embedded",
    title="tritonserver 2.51 on this CPU",
    note="This is the embedded Triton 2.51 on the CPU: for development, tests and rehearsal.",
    prepare=prepared,
    launch=launch,
    check=check,
)
