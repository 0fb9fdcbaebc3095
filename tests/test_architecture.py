"""The house holds itself up: imports point down, heavy libraries have one door, files stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "toolkit"
FLOOR = {"errors", "specs"}
ROOMS_ALLOWED = {
    "__init__": set(),
    "errors": set(),
    "specs": set(),
    "rope": FLOOR,
    "templating": {"errors"},
    "registry": FLOOR,
    "files": {"errors"},
    "workspace": {"errors"},
    "hashes": {"errors", "files", "workspace"},
    "verifying": FLOOR | {"hashes"},
    "cache": {"errors", "files", "hashes", "workspace"},
    "processes": set(),
    "containers": FLOOR | {"processes"},
    "gpus": FLOOR | {"registry"},
    "speeds": FLOOR | {"registry"},
    "releases": FLOOR | {"registry"},
    "prices": FLOOR | {"registry", "gpus"},
    "weights": set(),
    "quant": FLOOR | {"registry", "weights"},
    "models": FLOOR | {"registry", "files", "hashes", "rope", "workspace"},
    "machine": FLOOR | {"gpus", "registry", "containers", "processes"},
    "plan": FLOOR | {"rope"},
    "calibration": FLOOR | {"files", "plan", "registry", "workspace"},
    "checkpoint": FLOOR | {"files", "models", "quant", "registry", "rope", "weights"},
    "forward": FLOOR | {"files", "models", "quant", "rope", "templating", "weights"},
    "convert": FLOOR | {"files", "models", "quant", "weights", "checkpoint", "forward"},
    "evaluate": FLOOR | {"files", "models", "quant", "weights", "checkpoint", "forward"},
    "engine": FLOOR
    | {"files", "hashes", "verifying", "registry", "containers", "processes", "templating", "rope", "workspace"},
    "serve": FLOOR | {"files", "hashes", "verifying", "registry", "containers", "processes", "templating", "workspace"},
    "pool": FLOOR | {"files", "processes"},
    "gateway": FLOOR | {"files", "pool"},
    "bench": FLOOR | {"files", "registry", "templating", "monitoring"},
    "monitoring": FLOOR | {"files", "registry", "templating"},
    "talk": FLOOR | {"bench"},  # one request, through the load tester's own clients
    "repository": FLOOR | {"files", "registry", "templating"},
    "deploy": FLOOR | {"files", "registry", "templating", "containers", "monitoring"},  # pure; two for their nouns
    "validation": FLOOR
    | {"registry", "processes", "deploy", "monitoring"},  # runs validators over what deploy rendered
    "cli": None,  # composes everything
}
#: third-party library → the rooms that may import it
DOORS = {
    "docker": {"containers"},
    "torch": {"weights", "quant", "checkpoint", "forward", "convert", "evaluate"},
    "safetensors": {"checkpoint", "forward", "models", "engine"},
    "pynvml": {"machine"},
    "zstandard": {"engine"},
    "jinja2": {"templating"},
    "click": {"cli"},
    "rich": {"cli"},
    "httpx": {"serve", "cli", "monitoring", "gateway"},
    "prometheus_client": {"monitoring", "gateway"},
    "starlette": {"gateway"},
    "uvicorn": {"gateway"},
    "uvloop": {"gateway", "bench"},
    "grpc": {"gateway", "pool"},
    "prompt_toolkit": {"cli"},
    "hpack": {"bench"},
    "matplotlib": {"bench"},
    "tritonclient": {"bench", "repository", "pool", "gateway", "talk"},
    "yaml": {"repository", "pool", "serve", "deploy", "validation", "cli"},
    "kubernetes_validate": {"validation"},
    "jsonschema": {"validation"},
    "yamllint": {"validation"},
    "compose_spec": {"validation"},
    "hcl2": {"validation"},
    "lark": {"validation"},
    "helm_python": {"validation"},
    "promql_parser": {"validation"},
    "transformers": {"engine"},
    "gguf": {"models"},
    "pyarrow": {"forward"},
    "huggingface_hub": {"models"},
    "tokenizers": {"forward", "evaluate", "bench", "models"},
    "openvino": {"engine"},
    "openvino_genai": {"engine"},
    "openvino_tokenizers": {"engine"},
    "numpy": {"engine", "convert", "quant", "models"},
}
SOURCES = sorted(PACKAGE.rglob("*.py"))
BANNED_NAMES = {"util", "utils", "common", "helper", "helpers", "misc", "manager"}


def room_of(source: Path) -> str:
    return source.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules_imported_by(source: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules |= {f"toolkit.{alias.name}" for alias in node.names} if node.module == "toolkit" else {node.module}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return modules


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(source):
    allowed = ROOMS_ALLOWED[room_of(source)]
    rooms = {name.split(".")[1] for name in modules_imported_by(source) if name.startswith("toolkit.")}
    rooms -= {"__version__"}
    assert allowed is None or rooms - {room_of(source)} <= allowed


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_library_has_its_door(source):
    for module in modules_imported_by(source):
        doors = DOORS.get(module.split(".")[0])
        assert doors is None or room_of(source) in doors, f"{source} imports {module}"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_small_and_named_for_a_subject(source):
    assert len(source.read_text(encoding="utf-8").splitlines()) <= 400
    assert not BANNED_NAMES & set(source.with_suffix("").parts)


def test_help_is_light_and_fast():
    """`trtk --help` takes under 200 ms of CPU time and loads no heavy library."""
    heavy = "torch transformers openvino tensorrt_llm docker tritonclient grpc numpy httpx jinja2 rich"
    code = (
        "import sys, time, toolkit.cli\n"
        "try: toolkit.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print(' '.join(set('{heavy}'.split()) & set(sys.modules)), file=sys.stderr)\n"
        "print(time.process_time(), file=sys.stderr)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stderr.split("\n")
        for _ in range(10)  # who shares the core adds up to half
    ]
    assert runs[0][0] == ""
    assert min(float(run[1]) for run in runs) < 0.2
