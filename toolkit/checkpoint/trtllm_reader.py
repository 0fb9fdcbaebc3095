"""A TensorRT-LLM checkpoint → decoder layers, embedding and head: ranks are put together again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.checkpoint.module_reader import FormatTable, Stored, linear_of
from toolkit.checkpoint.sharding import COLUMN_PARALLEL, local_expert, stage_of
from toolkit.checkpoint.tensor_file import AGAIN, TensorFile
from toolkit.errors import BuildError
from toolkit.files import json_object
from toolkit.models import TensorNames, parts
from toolkit.specs import ModelSpec, Sharding
from toolkit.weights import Layer, Linear, joined_columns, joined_rows, split_rows

if TYPE_CHECKING:
    import torch

#: The checkpoint's names of KV cache scales; one for both, or one each.
KV_SCALE = "attention.kv_cache_scaling_factor"
K_SCALE, V_SCALE = "attention.k_cache_scaling_factor", "attention.v_cache_scaling_factor"


class TrtllmCheckpoint:
    """Reads one layer at a time, whole, from all the ranks that hold a piece of it."""

    def __init__(self, folder: Path, names: TensorNames, spec: ModelSpec, *, device: str = "cpu") -> None:
        self.folder, self.names, self.spec, self.device = folder, names, spec, device
        self.config = json_object(folder / "config.json", hint=AGAIN)
        self.quantization: dict[str, Any] = self.config.get("quantization") or {}
        mixed = folder / "quant_cfg.json"
        layers = json_object(mixed, hint=AGAIN).get("quantized_layers", {}) if mixed.is_file() else {}
        self.formats = FormatTable(self.quantization, layers)
        self.sharding = sharding_of(self.config)
        world = self.sharding.tp * self.sharding.pp
        self._stacked: dict[tuple[str, str], Stored] = {}
        self.ranks = [TensorFile(folder / f"rank{rank}.safetensors") for rank in range(world)]

    @property
    def kv_cache(self) -> str | None:
        """The KV cache's type in TensorRT-LLM's words, None for the model's dtype."""
        return self.quantization.get("kv_cache_quant_algo")

    def layer(self, index: int) -> Layer:
        """Return one layer with its linears whole and unpacked."""
        stage, local = stage_of(self.sharding, self.spec.num_layers, index)
        ranks, prefix = self._stage(stage), f"transformer.layers.{local}."
        linears: dict[str, Linear] = {}
        self._stacked.clear()
        for module, members in parts.modules(self.spec, index).items():
            sizes, shape = self._local_rows(index, members), self._local_shape(index, members)
            held = self._pieces(ranks, prefix, module)
            self._check(f"{prefix}{module}", [piece.shape for piece in held], shape)
            pieces = [split_rows(linear, sizes) for linear in held]
            linears |= {part: self._whole(part, [piece[part] for piece in pieces]) for part in members}
        tensors = {name: self._small(ranks[0], f"{prefix}{name}.weight") for name in self._small_names(index)}
        return Layer(index=index, linears=linears, tensors=tensors, scalars=self._kv_scales(ranks[0], prefix))

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return float32 hidden states of token ids, scaled as the family says."""
        import torch

        name, flat = "transformer.vocab_embedding.weight", ids.reshape(-1)
        ranks = self._stage(0)
        is_cut = bool(self.config.get("use_parallel_embedding")) and len(ranks) > 1
        if not is_cut:
            found = ranks[0].rows(name, flat)
        elif self.config.get("embedding_sharding_dim"):
            found = torch.cat([rank.rows(name, flat) for rank in ranks], dim=1)
        else:
            here = ranks[0].shape(name)[0]
            found = torch.cat([ranks[int(row) // here].rows(name, row[None] % here) for row in flat])
        found = found.float().reshape(*ids.shape, -1)
        return (found * self.spec.embedding_scale).to(self.device)

    def final_norm(self) -> torch.Tensor:
        """Return the final norm's float32 weight; the checkpoint has the family's offset in it."""
        return self._stage(self.sharding.pp - 1)[0].tensor("transformer.ln_f.weight").float().to(self.device)

    def head(self) -> torch.Tensor:
        """Return the output matrix [vocab, hidden] without its padding; the embedding where no head is stored."""
        import torch

        ranks = self._stage(self.sharding.pp - 1)
        name = "lm_head.weight" if "lm_head.weight" in ranks[0] else "transformer.vocab_embedding.weight"
        if not ranks[0].is_float(name):
            raise BuildError(f"{self.folder} has a quantized lm_head, which trtk does not read.")
        pieces = [rank.tensor(name) for rank in ranks]
        is_whole = pieces[0].shape[0] >= self.spec.vocab_size
        return (pieces[0] if is_whole else torch.cat(pieces))[: self.spec.vocab_size]

    def _stage(self, stage: int) -> list[TensorFile]:
        tp = self.sharding.tp
        return self.ranks[stage * tp : (stage + 1) * tp]

    def _pieces(self, ranks: Sequence[TensorFile], prefix: str, module: str) -> list[Linear]:
        """Return a module's Linear of each rank that holds some of it."""
        name, expert, owners = module, None, list(ranks)
        if module.startswith("mlp.experts."):
            assert self.spec.moe, "only a mixture has experts"
            number = int(module.split(".")[2])
            name, expert = f"mlp.{module.rpartition('.')[2]}", local_expert(self.spec, self.sharding, number)
            owners = owners[number // (self.spec.moe.num_experts // self.sharding.ep) :: self.sharding.ep]
        name = f"{prefix}{name}"
        algo = self.formats.algo_of(name)
        return [linear_of(name, self._stored(rank, name), algo, expert=expert) for rank in owners]

    def _stored(self, rank: TensorFile, module: str) -> Stored:
        """Return a module's tensors, kept until the next layer: experts are stacked in one."""
        key = (rank.path.name, module)
        if key not in self._stacked:
            self._stacked[key] = {name: t.to(self.device) for name, t in rank.below(f"{module}.").items()}
        return self._stacked[key]

    def _local_rows(self, index: int, members: Sequence[str]) -> dict[str, int]:
        """Return how many rows of each part a rank holds."""
        shapes = parts.shapes(self.spec, index)
        return {part: shapes[part][0] // self._cuts(part)[0] for part in members}

    def _cuts(self, part: str) -> tuple[int, int]:
        """Return into how many pieces a part's rows and columns are cut."""
        prefix, _, name = part.rpartition(".")
        count = self.sharding.tp // self.sharding.ep if prefix.startswith("mlp.experts.") else self.sharding.tp
        if name in {"k", "v"}:
            count = min(count, self.spec.num_kv_heads)
        return (count, 1) if name in COLUMN_PARALLEL else (1, count)

    def _whole(self, part: str, pieces: Sequence[Linear]) -> Linear:
        """Return a part put together from the ranks' pieces; of ranks that share a KV head, one speaks."""
        rows, columns = self._cuts(part)
        different = pieces[:: len(pieces) // max(rows, columns)]
        _need_equal(part, different)
        return joined_columns(different) if columns > 1 else joined_rows(different)

    def _local_shape(self, index: int, members: Sequence[str]) -> tuple[int, int]:
        """Return [N, K] of a module on one rank."""
        width = parts.shapes(self.spec, index)[members[0]][1]
        return sum(self._local_rows(index, members).values()), width // self._cuts(members[0])[1]

    def _check(self, module: str, found: Sequence[tuple[int, int]], expected: tuple[int, int]) -> None:
        for shape in found:
            if shape != expected:
                raise BuildError(
                    f"{module} in {self.folder} has shape {shape}, but the model asks for {expected}.",
                    hint="The checkpoint is of another model, or its config.json is of another checkpoint.",
                )

    def _small(self, rank: TensorFile, name: str) -> torch.Tensor:
        return rank.tensor(name).float().to(self.device)

    def _small_names(self, index: int) -> Iterator[str]:
        yield from self.names.norms
        if self.spec.is_moe_layer(index):
            yield "mlp.router"
            if self.names.shared_expert_gate:
                yield "mlp.shared_expert_gate"

    def _kv_scales(self, rank: TensorFile, prefix: str) -> dict[str, float]:
        if self.kv_cache is None:
            return {}
        shared = f"{prefix}{KV_SCALE}"
        keys, values = (shared, shared) if shared in rank else (f"{prefix}{K_SCALE}", f"{prefix}{V_SCALE}")
        return {
            "attention.k_scale": float(rank.tensor(keys).max()),
            "attention.v_scale": float(rank.tensor(values).max()),
        }


def sharding_of(config: dict[str, Any]) -> Sharding:
    """Return how a checkpoint's config.json says that it is divided."""
    mapping = config.get("mapping") or {}
    return Sharding(
        tp=int(mapping.get("tp_size", 1)),
        pp=int(mapping.get("pp_size", 1)),
        ep=max(1, int(mapping.get("moe_ep_size", 1))),
    )


def _need_equal(part: str, pieces: Sequence[Linear]) -> None:
    """Raise BuildError when ranks disagree on what belongs to the whole linear."""
    import torch

    for field in ("weight_scale_2", "activation_scale"):
        values = [getattr(piece, field) for piece in pieces]
        if any(value is not None and not torch.equal(value, values[0]) for value in values[1:]):
            raise BuildError(f"The ranks hold different {field} of {part}.", hint="Quantize the model again.")
