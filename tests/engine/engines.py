"""The two ways to run a checkpoint on the CPU: the compiled graph itself, and the pipeline that serves it."""

import numpy as np
import torch

from tests.conftest import save_tokenizer
from toolkit.engine.checkpoint_reader import CheckpointReader
from toolkit.engine.openvino_files import save_ir
from toolkit.engine.openvino_graph import decoder_model
from toolkit.engine.openvino_tokenizer import save_tokenizer as save_tokenizer_ir

#: 16 bits would break near ties, and some CPUs round activations to 8.
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


class Engine:
    """A compiled stateful model, fed pieces of a sequence."""

    def __init__(self, checkpoint, **options):
        import openvino

        self.model, self.weights = decoder_model(CheckpointReader(checkpoint), **options)
        self.request = openvino.Core().compile_model(self.model, "CPU", EXACT).create_infer_request()

    def logits(self, ids, pieces):
        """Return float32 logits of ids [batch, length], computed piece after piece over the engine's own KV cache."""
        found, start = [], 0
        for end in pieces:
            inputs = {
                "input_ids": ids[:, start:end].numpy(),
                "attention_mask": np.ones((ids.shape[0], end), dtype=np.int64),
                "position_ids": np.broadcast_to(np.arange(start, end), (ids.shape[0], end - start)).copy(),
                "beam_idx": np.arange(ids.shape[0], dtype=np.int32),
            }
            found.append(torch.tensor(self.request.infer(inputs)["logits"].copy()))
            start = end
        return torch.cat(found, dim=1)


def greedy_tokens(checkpoint, folder, prompts, *, count):
    """Return COUNT greedy tokens after each prompt, all prompts in flight in the pipeline that serves engines.

    Prefill goes in pieces of 32 tokens, as it does in a busy server.
    """
    import openvino
    import openvino_genai

    folder.mkdir()
    model, _weights = decoder_model(CheckpointReader(checkpoint), max_seq_len=256)
    save_ir(model, folder / "openvino_model.xml")
    save_tokenizer(folder, 320)
    save_tokenizer_ir(folder, folder)
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_batched_tokens, scheduler.num_kv_blocks = 32, 64
    scheduler.dynamic_split_fuse = scheduler.enable_prefix_caching = True
    pipeline = openvino_genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", EXACT)
    greedy = openvino_genai.GenerationConfig(max_new_tokens=count, do_sample=False, ignore_eos=True)
    results = pipeline.generate([openvino.Tensor(ids.numpy()) for ids in prompts], [greedy] * len(prompts))
    return [list(result.m_generation_ids[0]) for result in results]
