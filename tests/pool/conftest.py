"""A Triton that does what a test says, and a pool on it."""

import asyncio

import pytest

from toolkit.pool.config import PoolConfig, PooledModel, Size
from toolkit.pool.control import Away, ControlError
from toolkit.pool.measuring import Measured
from toolkit.pool.pool import Pool
from toolkit.specs import ModelSpec

MIB = 1 << 20


class ScriptedTriton:
    """Loads in no time unless it is told otherwise; takes 60 MiB for each model."""

    def __init__(self, config):
        self.steps = {part: model.parts for model in config.models for part in model.loaded}
        self.ready, self.calls, self.failing, self.stuck = set(), [], {}, set()
        self.is_away = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.pids = {}
        self.bytes_each = 60 * MIB
        self.most_bytes = 0

    async def load(self, model, *, timeout_s):
        assert timeout_s > 0
        self.calls.append(f"load {model}")
        await self.gate.wait()
        if self.is_away:
            raise Away("failed to connect to all addresses")
        if model in self.failing:
            raise ControlError(self.failing[model])
        self.pids[model] = 1000 + len(self.calls)
        self.ready |= set(self.steps[model])
        self.most_bytes = max(self.most_bytes, len(self.ready) * self.bytes_each)

    async def unload(self, model):
        self.calls.append(f"unload {model}")
        if model not in self.stuck:
            self.ready.discard(model)

    async def states(self):
        if self.is_away:
            raise Away("failed to connect to all addresses")
        return dict.fromkeys(self.ready, "READY")

    def measure(self, _repository):
        return {
            part: Measured(pids=frozenset({self.pids.get(part, 1)}), pss_bytes=self.bytes_each) for part in self.ready
        }


def made_model(name, size_mib=100, **changes):
    size = Size(
        weights_bytes=(size_mib - 30) * MIB, kv_bytes=10 * MIB, activation_bytes=10 * MIB, runtime_bytes=10 * MIB
    )
    settings = {"parts": (name,), "loaded": (name,), "artefact": f"sha-{name}", "kv_tokens": 64, "size": size}
    return PooledModel(name=name, **{"kv_bytes_per_token": 1} | settings | changes)


@pytest.fixture
def pool_of(tmp_path):
    """Return a function that makes a pool and the Triton below it."""

    def make(*models, memory_mib=200, **changes):
        settings = {"min_residency_s": 0.0, "queue_timeout_s": 5.0, "is_measured": False} | changes
        config = PoolConfig(
            models=models,
            memory_bytes=memory_mib * MIB,
            repository=str(tmp_path / "model_repository"),
            journal=str(tmp_path / "journal.jsonl"),
            snapshot=str(tmp_path / "snapshot.json"),
            created=0,
            **settings,
        )
        triton = ScriptedTriton(config)
        return Pool(config, triton, measure=triton.measure), triton

    return make


@pytest.fixture
def model():
    """Return a function that makes a model of 100 MiB."""
    return made_model


DEMO = ModelSpec(
    family="llama",
    architecture="LlamaForCausalLM",
    vocab_size=49152,
    hidden_size=576,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    intermediate_size=1536,
    activation="silu",
    norm_eps=1e-5,
    rope_theta=100000.0,
    max_position_embeddings=8192,
    is_tied=True,
    dtype="float16",
)


@pytest.fixture(scope="session")
def demo_plan():
    """The plan of the demo model's shape, as fp16 for the CPU."""
    from toolkit import gpus, plan, quant, releases

    target = plan.Target(gpu=gpus.get("cpu"), flow="openvino", **releases.facts_of(releases.default()))
    converted = plan.conversion(DEMO, quant.get("fp16"), asked=plan.AskedCheckpoint(), calibration=None)
    return plan.make(converted, target, plan.Asked())
