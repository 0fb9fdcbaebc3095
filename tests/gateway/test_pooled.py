"""A pool seen through the gateway: who cannot have a model is told when to come again."""

import asyncio

import pytest

from toolkit import specs
from toolkit.gateway.leases import Busy, ServedModel, UnknownModel
from toolkit.gateway.pooled import Pooled
from toolkit.pool import PoolConfig, PooledModel, Size


@pytest.fixture
def settings(tmp_path):
    size = Size(weights_bytes=1, kv_bytes=1, activation_bytes=1, runtime_bytes=1)
    model = PooledModel(
        name="a", parts=("a",), loaded=("a",), artefact="sha", kv_tokens=64, kv_bytes_per_token=1, size=size
    )
    config = PoolConfig(
        models=(model,),
        memory_bytes=10,
        repository=str(tmp_path),
        journal=str(tmp_path / "journal.jsonl"),
        snapshot=str(tmp_path / "snapshot.json"),
        created=7,
        queue=0,
    )
    return specs.to_json(config)


def test_a_full_queue_is_busy_with_a_time_and_an_unknown_model_is_unknown(settings):
    async def run():
        leases = Pooled(settings, "127.0.0.1:9")
        try:
            with pytest.raises(Busy) as busy:
                await leases.lease("a").__aenter__()
            with pytest.raises(UnknownModel) as unknown:
                await leases.lease("b").__aenter__()
            return leases.served(), busy.value, unknown.value
        finally:
            await leases.close()

    served, busy, unknown = asyncio.run(run())

    assert served == [ServedModel(name="a", created=7, state="unloaded")]
    assert str(busy) == "0 of your requests wait for the model 'a' already."
    assert busy.retry_after_s >= 1
    assert (str(unknown), unknown.hint) == ("The model 'b' is not served here.", "Served: a.")
