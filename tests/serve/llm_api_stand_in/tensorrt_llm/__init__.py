"""Stands for TensorRT-LLM's LLM API: takes the arguments that its documentation lists, no other, and counts words."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

#: From references_committed/llm.yaml of TensorRT-LLM 1.2, and the two that its model.yaml adds.
ARGUMENTS = {
    "model", "tokenizer", "tokenizer_mode", "skip_tokenizer_init", "trust_remote_code", "tensor_parallel_size", "dtype",
    "revision", "tokenizer_revision", "pipeline_parallel_size", "context_parallel_size", "moe_tensor_parallel_size",
    "moe_expert_parallel_size", "enable_lora", "lora_config", "guided_decoding_backend", "speculative_config",
    "max_batch_size", "max_input_len", "max_seq_len", "max_beam_width", "max_num_tokens", "load_format",
    "enable_chunked_prefill", "kv_cache_config", "stream_interval", "backend", "scheduler_config", "cuda_graph_config",
    "enable_iter_perf_stats",
}  # fmt: skip
SAMPLING = {
    "end_id", "pad_id", "max_tokens", "bad", "stop", "top_k", "top_p", "temperature", "seed", "min_tokens",
    "length_penalty", "repetition_penalty", "presence_penalty", "frequency_penalty", "n", "logprobs",
    "add_special_tokens", "guided_decoding",
}  # fmt: skip


#: Of one iteration, with some of the keys that its /metrics test names.
STATS = {
    "iter": 7,
    "cpuMemUsage": 1,
    "gpuMemUsage": 2,
    "pinnedMemUsage": 3,
    "numActiveRequests": 4,
    "numQueuedRequests": 5,
    "maxNumActiveRequests": 64,
    "kvCacheStats": {"maxNumBlocks": 80, "freeNumBlocks": 60, "usedNumBlocks": 20, "tokensPerBlock": 32},
    "inflightBatchingStats": {"numScheduledRequests": 3, "numContextRequests": 1, "numGenRequests": 2},
}


class SamplingParams:
    """Keeps what it is told; an argument that it does not have is an error."""

    def __init__(self, **values):
        assert values.keys() <= SAMPLING, values.keys() - SAMPLING
        self.values = {"max_tokens": 32, **values}


class LLM:
    """Answers with its prompt's words again and again, one each 5 ms."""

    def __init__(self, **arguments):
        assert arguments.keys() <= ARGUMENTS, arguments.keys() - ARGUMENTS
        self.folder = Path(__file__).parent
        (self.folder / "arguments.json").write_text(json.dumps(arguments))

    def generate_async(self, text, *, sampling_params, lora_request, streaming):
        if lora_request:
            (self.folder / "adapter.json").write_text(json.dumps(vars(lora_request)))
        return Generation(self.folder, text, sampling_params.values, is_streaming=streaming)

    async def get_stats_async(self, timeout):
        assert timeout > 0
        yield STATS

    def shutdown(self):
        (self.folder / "shutdown").touch()


class Generation:
    """A request that runs: awaited whole, or iterated; its text is all of it so far."""

    def __init__(self, folder, text, sampling, *, is_streaming):
        self.folder, self.words, self.sampling = folder, text.split(), sampling
        self.is_streaming, self.is_aborted = is_streaming, False
        (folder / "sampling.json").write_text(json.dumps(sampling))

    async def results(self):
        said = []
        for number in range(self.sampling["max_tokens"]):
            await asyncio.sleep(0.005)
            if self.is_aborted:
                return
            said.append(self.words[number % len(self.words)])
            text, tokens = "".join(f" {word}" for word in said), list(range(len(said)))
            reason = "length" if number + 1 == self.sampling["max_tokens"] else None
            log_probs = (
                [{token: SimpleNamespace(logprob=-0.5)} for token in tokens] if "logprobs" in self.sampling else []
            )
            fields = {"text": text, "token_ids": tokens, "finish_reason": reason, "logprobs": log_probs}
            outputs = [SimpleNamespace(**fields, index=index) for index in range(self.sampling.get("n", 1))]
            yield SimpleNamespace(outputs=outputs, prompt_token_ids=list(range(len(self.words))))

    def __aiter__(self):
        return self.results()

    async def aresult(self):
        last = None
        async for result in self.results():
            last = result
        return last

    def abort(self):
        self.is_aborted = True
        (self.folder / "aborted").touch()
