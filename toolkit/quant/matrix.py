"""Where each quantization runs, by flow, algorithm and SM: support.toml, read once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import UnknownName
from toolkit.registry import toml_document

PATH = Path(__file__).with_name("support.toml")
FLOWS = ("engine", "llmapi", "openvino")
VERDICTS = ("yes", "no", "unverified")
#: What stands for "not quantized" where a recipe or a KV cache says None.
NONE = "NONE"


def flows() -> tuple[str, ...]:
    """Return the ways from a checkpoint to a running server."""
    return FLOWS


def sms() -> tuple[int, ...]:
    """Return every SM that the matrix decides about; 0 is the CPU."""
    return tuple(_document()["sms"])


def algorithms() -> tuple[str, ...]:
    """Return TensorRT-LLM's names of the quantizations in the matrix, NONE first."""
    return tuple(_document()["engine"])


def supported_sms(quant_algo: str | None, flow: str) -> tuple[int, ...]:
    """Return the SMs known to run a quantization; None leaves the model in 16 bits."""
    return _row(_flow(_document(), flow), quant_algo, kind="quantization algorithm")["yes"]


def unverified_sms(quant_algo: str | None, flow: str) -> tuple[int, ...]:
    """Return the SMs of which nobody has confirmed that they run a quantization."""
    return _row(_flow(_document(), flow), quant_algo, kind="quantization algorithm")["unverified"]


def supported_kv_cache_sms(kv_cache_algo: str | None, flow: str) -> tuple[int, ...]:
    """Return the SMs known to store the KV cache as INT8 or FP8; None leaves it unquantized."""
    return _row(_flow(_document()["kv_cache"], flow), kv_cache_algo, kind="KV cache type")["yes"]


def unverified_kv_cache_sms(kv_cache_algo: str | None, flow: str) -> tuple[int, ...]:
    """Return the SMs of which nobody has confirmed that they store the KV cache as INT8 or FP8."""
    return _row(_flow(_document()["kv_cache"], flow), kv_cache_algo, kind="KV cache type")["unverified"]


def sources(quant_algo: str | None, flow: str) -> tuple[str, ...]:
    """Return the links behind a row of the matrix."""
    keys = _row(_flow(_document(), flow), quant_algo, kind="quantization algorithm")["sources"]
    return tuple(_document()["sources"][key] for key in keys)


def check(document: Mapping[str, Any]) -> None:
    """Raise ValueError unless each row decides every SM exactly once and names known sources."""
    known = sorted(document["sms"])
    for where in (document, document["kv_cache"]):
        for flow in FLOWS:
            for name, row in where[flow].items():
                if sorted(sm for verdict in VERDICTS for sm in row[verdict]) != known:
                    raise ValueError(f"{flow}.{name} must decide each SM of {known} exactly once")
                if unknown := set(row["sources"]) - set(document["sources"]):
                    raise ValueError(f"{flow}.{name} names unknown sources {sorted(unknown)}")


def _flow(tables: Mapping[str, Any], flow: str) -> Mapping[str, Any]:
    if flow not in FLOWS:
        raise UnknownName("flow", flow, FLOWS)
    table: Mapping[str, Any] = tables[flow]
    return table


def _row(table: Mapping[str, Any], name: str | None, *, kind: str) -> dict[str, tuple[Any, ...]]:
    key = name or NONE
    if key not in table:
        raise UnknownName(kind, key, table)
    return {column: tuple(values) for column, values in table[key].items()}


@functools.cache
def _document() -> dict[str, Any]:
    document = toml_document(PATH)
    check(document)
    return document
