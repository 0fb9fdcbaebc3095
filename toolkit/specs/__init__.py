"""The nouns that rooms hand each other: frozen, keyword-only, JSON in and out."""

from __future__ import annotations

from collections.abc import Callable

from toolkit.specs.artefacts import (
    MANIFEST_SCHEMA,
    EngineManifest,
    FileRecord,
    manifest_from_json,
)
from toolkit.specs.builder_facts import LISTS, SWITCH, BuildFlag, BuildTool, LlmApi
from toolkit.specs.catalogue import CPU_SM, MIXED_PRECISION, STAYS_16_BIT, GpuSpec, QuantRecipe, Release
from toolkit.specs.deploying import (
    Autoscale,
    Budgets,
    DeployedContainer,
    DeployedGpu,
    DeployedModel,
    DeploySpec,
    ModelVolume,
    Placement,
    Promise,
    Reasoned,
)
from toolkit.specs.evaluation import Evaluation, LayerError, QualityGate, gates_of
from toolkit.specs.json_values import from_json, to_json
from toolkit.specs.load import BenchReport, LoadProfile, RequestRecord, Stage, TraceRow
from toolkit.specs.model import HybridModelSpec, LatentModelSpec, ModelSource, ModelSpec, MoeSpec
from toolkit.specs.planning import (
    CALIBRATED,
    EXTRAPOLATED,
    FITTED,
    MEASURED,
    Cost,
    KvPool,
    MemoryBudget,
    Prediction,
    PriceOffer,
    Range,
    Sizing,
    Slo,
    Workload,
)
from toolkit.specs.plans import Adapter, AutoSpec, BuildPlan, CalibrationSpec, Choice, ConversionPlan, Limits, Sharding
from toolkit.specs.repositories import RepositorySettings, RepositorySpec
from toolkit.specs.serving import Companion, ContainerOptions, Endpoint, ServeSpec
from toolkit.specs.speed import (
    ArchitectureRates,
    Calibration,
    CalibrationPoint,
    LinkRates,
    ServerSetup,
    Speculation,
    SpeedConstants,
)

__all__ = [
    "CALIBRATED",
    "CPU_SM",
    "EXTRAPOLATED",
    "FITTED",
    "LISTS",
    "MANIFEST_SCHEMA",
    "MEASURED",
    "MIXED_PRECISION",
    "STAYS_16_BIT",
    "SWITCH",
    "Adapter",
    "ArchitectureRates",
    "AutoSpec",
    "Autoscale",
    "BenchReport",
    "Budgets",
    "BuildFlag",
    "BuildPlan",
    "BuildTool",
    "Calibration",
    "CalibrationPoint",
    "CalibrationSpec",
    "Choice",
    "Companion",
    "ContainerOptions",
    "ConversionPlan",
    "Cost",
    "DeploySpec",
    "DeployedContainer",
    "DeployedGpu",
    "DeployedModel",
    "Endpoint",
    "EngineManifest",
    "Evaluation",
    "FileRecord",
    "GpuSpec",
    "HybridModelSpec",
    "KvPool",
    "LatentModelSpec",
    "LayerError",
    "Limits",
    "LinkRates",
    "LlmApi",
    "LoadProfile",
    "MemoryBudget",
    "ModelSource",
    "ModelSpec",
    "ModelVolume",
    "MoeSpec",
    "Placement",
    "Prediction",
    "PriceOffer",
    "Progress",
    "Promise",
    "QualityGate",
    "QuantRecipe",
    "Range",
    "Reasoned",
    "Release",
    "RepositorySettings",
    "RepositorySpec",
    "RequestRecord",
    "ServeSpec",
    "ServerSetup",
    "Sharding",
    "Sizing",
    "Slo",
    "Speculation",
    "SpeedConstants",
    "Stage",
    "TraceRow",
    "Workload",
    "from_json",
    "gates_of",
    "manifest_from_json",
    "no_progress",
    "to_json",
]

#: How long work reports how far it is: (step, done, total), in whatever unit the step counts.
Progress = Callable[[str, float, float], None]


def no_progress(step: str, done: float, total: float) -> None:
    """Report to nobody."""
