"""A model: its shape, and where its files are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class MoeSpec:
    """A mixture of experts: gated MLPs, of which a router picks top_k for each token."""

    num_experts: int
    top_k: int
    intermediate_size: int  # of one expert
    shared_intermediate_size: int | None = None  # of the expert that every token passes (Qwen2-MoE)
    is_topk_normalized: bool = True  # the chosen experts' weights add up to 1
    dense_layers: tuple[int, ...] = ()  # layers with an ordinary MLP


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A decoder-only model's shape: what the planner, the converter and the toolchains need to know."""

    family: str
    architecture: str  # HF's architectures[0], also TensorRT-LLM's
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    activation: str  # silu, gelu_pytorch_tanh, ...
    norm_eps: float
    rope_theta: float
    rope_scaling: Mapping[str, Any] | None = None  # HF's dict, with rope_type
    max_position_embeddings: int
    sliding_window: int | None = None
    has_qkv_bias: bool = False
    has_output_bias: bool = False  # attention.dense
    has_mlp_bias: bool = False
    has_qk_norm: bool = False  # RMSNorm of each query and key head
    has_sandwich_norms: bool = False  # norms behind attention and MLP as well as before
    is_mlp_fused: bool = False  # TensorRT-LLM's class keeps gate and up as one module
    is_tied: bool = False  # lm_head is the embedding
    norm_offset: float = 0.0  # added to every norm weight of the Hugging Face model: 1 for Gemma
    embedding_scale: float = 1.0
    attention_scale: float | None = None  # of the scores; None: head_dim ** -0.5
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    rotary_dim: int | None = None  # None: the whole head
    rope_local_theta: float | None = None  # of sliding layers, where it is another than rope_theta
    full_attention_layers: tuple[int, ...] | None = None  # None: every layer slides where there is a window
    moe: MoeSpec | None = None
    is_text_part: bool = False  # of a model that also sees: only the language model is described
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None
    dtype: str = "bfloat16"  # of the original weights

    def window_of(self, layer: int) -> int | None:
        """Return how many positions a layer looks back, or None for all."""
        is_full = self.full_attention_layers is not None and layer in self.full_attention_layers
        return None if is_full else self.sliding_window

    def is_moe_layer(self, layer: int) -> bool:
        """Return whether a layer's MLP is a mixture of experts."""
        return self.moe is not None and layer not in self.moe.dense_layers

    def is_recurrent(self, layer: int) -> bool:  # noqa: ARG002 - those of a hybrid model hang on it
        """Return whether a layer keeps a state in place of keys and values."""
        return False

    @property
    def has_shared_gate(self) -> bool:
        """Whether a gate weighs the expert that every token passes."""
        return self.moe is not None and bool(self.moe.shared_intermediate_size)

    @property
    def value_dim(self) -> int:
        """Width of a head's values: what attention.dense reads of it."""
        return self.head_dim


@dataclass(frozen=True, kw_only=True)
class LatentModelSpec(ModelSpec):
    """A decoder with multi-head latent attention (DeepSeek V2 and V3): it caches one compressed vector a token.

    Known to `trtk plan` alone; head_dim is that of queries and keys.
    """

    q_lora_rank: int | None  # None: queries are not compressed
    kv_lora_rank: int
    rope_head_dim: int
    value_head_dim: int
    has_router_bias: bool = False

    @property
    def has_shared_gate(self) -> bool:
        """Shared experts count in full."""
        return False

    @property
    def value_dim(self) -> int:
        """Width of a head's values."""
        return self.value_head_dim

    @property
    def latent_dim(self) -> int:
        """Numbers that are cached of a token and layer."""
        return self.kv_lora_rank + self.rope_head_dim


@dataclass(frozen=True, kw_only=True)
class HybridModelSpec(ModelSpec):
    """A decoder of which some layers have linear attention (Qwen3-Next): a state for each request, however long it is.

    Known to `trtk plan` alone. The output of full attention has a gate, which the queries' linear makes too.
    """

    recurrent_layers: tuple[int, ...]
    key_heads: int
    value_heads: int
    key_dim: int
    state_value_dim: int
    conv_width: int

    def is_recurrent(self, layer: int) -> bool:
        """Return whether a layer keeps a state in place of keys and values."""
        return layer in self.recurrent_layers

    @property
    def conv_channels(self) -> int:
        """Channels of a recurrent layer's convolution: queries, keys and values."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.state_value_dim

    @property
    def state_bytes(self) -> int:
        """Bytes that a recurrent layer keeps of a request: the convolution's last inputs, a float32 matrix a head."""
        matrix = 4 * self.value_heads * self.key_dim * self.state_value_dim
        return 2 * self.conv_channels * self.conv_width + matrix


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a model's files are, and exactly which version they are."""

    name: str  # what the user typed: demo, org/name or a path
    path: str  # a folder with config.json and *.safetensors
    revision: str  # a commit, a wheel's sha256, or "local"
