"""The conversion of one model, step by step: embedding, every layer, head, config."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import quant
from toolkit.convert.calibration import CalibrationPass, from_file
from toolkit.convert.config import checkpoint_config
from toolkit.convert.layer import SHARED_INPUTS, Layer, load
from toolkit.convert.rank_file import RankFile
from toolkit.convert.self_text import SELF, SelfWriter, load_ids, save_ids
from toolkit.convert.shards import Shards
from toolkit.errors import PlanInfeasible
from toolkit.files import write_json
from toolkit.models import family_of
from toolkit.quant.algorithm import LinearGroup, Settings
from toolkit.quant.float16 import as_dtype
from toolkit.specs import ConversionPlan, ModelSource, Progress

if TYPE_CHECKING:
    import torch

    from toolkit.quant.statistics import InputStatistics

#: Tensors of a layer, of the ends and some to spare; sizes the header that RankFile reserves.
MAX_TENSORS_PER_LAYER, MAX_TENSORS_AT_ENDS = 32, 16


class Conversion:
    """Reads shards, calibrates, quantizes and writes; holds one decoder layer and the hidden states."""

    def __init__(self, plan: ConversionPlan, source: ModelSource, work: Path) -> None:
        self.plan, self.work, self.source = plan, work, Path(source.path)
        self.shards = Shards(self.source)
        self.names = family_of(plan.model.architecture).tensors

    def write(self, progress: Progress) -> None:
        """Write rank0.safetensors, tokenizer files and config.json (last)."""
        import torch

        spec = self.plan.model
        rank = RankFile(
            self.work / "rank0.safetensors", max_tensors=MAX_TENSORS_PER_LAYER * spec.num_layers + MAX_TENSORS_AT_ENDS
        )
        try:
            with torch.inference_mode():
                self._write_embedding(rank)
                self._write_layers(rank, progress)
                self._write_head(rank)
            rank.finish()
        finally:
            rank.close()
        (self.work / "calibration.safetensors").unlink(missing_ok=True)
        self._copy_tokenizer()
        write_json(self.work / "config.json", checkpoint_config(self.plan))

    def _write_embedding(self, rank: RankFile) -> None:
        if "embedding" not in rank.finished_steps:
            with rank.step("embedding"):
                rank.append({"transformer.vocab_embedding.weight": self._whole(self.names.embedding)})

    def _write_head(self, rank: RankFile) -> None:
        # A tied head is written out as well: trtllm-build shares equal constants, and needs both names for tp > 1.
        head = self.names.embedding if self.plan.model.is_tied else self.names.lm_head
        if "head" not in rank.finished_steps:
            with rank.step("head"):
                rank.append({"transformer.ln_f.weight": self._whole(self.names.final_norm)})
                rank.append({"lm_head.weight": self._whole(head)})

    def _whole(self, name: str) -> torch.Tensor:
        return as_dtype(self.shards.tensor(f"{name}.weight"), self._dtype, name)

    @property
    def _dtype(self) -> torch.dtype:
        import torch

        dtype: torch.dtype = getattr(torch, self.plan.dtype)
        return dtype

    def _write_layers(self, rank: RankFile, progress: Progress) -> None:
        spec = self.plan.model
        step = f"Quantize to {self.plan.recipe.name}"
        pass_ = self._calibration(progress)
        for index in range(spec.num_layers):
            progress(step, index, spec.num_layers)
            layer = self.load_layer(index)
            statistics = pass_.through(layer) if pass_ else {}
            if f"layer {index}" in rank.finished_steps:
                continue
            with rank.step(f"layer {index}"):
                rank.append(self._layer_tensors(layer, statistics))
        progress(step, spec.num_layers, spec.num_layers)

    def load_layer(self, index: int) -> Layer:
        """Read one layer as float32."""
        return load(self.shards, self.names, self.plan.model, index=index, device=self.plan.device)

    def _layer_tensors(self, layer: Layer, statistics: dict[str, InputStatistics]) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = {}
        settings = Settings(dtype=self._dtype, group_size=self.plan.group_size)
        for modules in SHARED_INPUTS:
            group = LinearGroup(
                weights={module: layer.weights[module] for module in modules},
                part_rows={module: layer.part_rows[module] for module in modules},
                statistics=statistics.get(modules[0]),
            )
            tensors.update(quant.algorithm(self.plan.recipe).quantize(group, settings))
        for module, bias in layer.biases.items():
            tensors[f"{module}.bias"] = as_dtype(bias, self._dtype, f"{module}.bias")
        for module, norm in layer.norms.items():
            tensors[f"{module}.weight"] = as_dtype(norm, self._dtype, module)
        prefix = f"transformer.layers.{layer.index}."
        return {prefix + name: tensor for name, tensor in tensors.items()}

    def _calibration(self, progress: Progress) -> CalibrationPass | None:
        if self.plan.calibration is None:
            return None
        return CalibrationPass(self.plan.model, self.embed(self._calibration_ids(progress)))

    def _calibration_ids(self, progress: Progress) -> torch.Tensor:
        spec, asked = self.plan.model, self.plan.calibration
        assert asked, "the caller checked"
        if asked.source != SELF:
            return from_file(asked, self.tokenizer_json, spec.vocab_size)
        kept = self.work / "calibration.safetensors"
        if not kept.is_file():
            ids = SelfWriter(self, spec).write(asked, self.tokenizer_json.parent, progress)
            save_ids(kept, ids)
        return load_ids(kept)  # an interrupted conversion goes on with the text it had

    def head(self) -> torch.Tensor:
        """Return the float32 output matrix [vocab, hidden]."""
        name = self.names.embedding if self.plan.model.is_tied else self.names.lm_head
        return self.shards.tensor(f"{name}.weight").float().to(self.plan.device)

    def final_norm(self) -> torch.Tensor:
        """Return the final norm's float32 weight."""
        return self.shards.tensor(f"{self.names.final_norm}.weight").float().to(self.plan.device)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return float32 hidden states of token ids."""
        rows = self.shards.rows(f"{self.names.embedding}.weight", ids.reshape(-1))
        return rows.float().reshape(*ids.shape, -1).to(self.plan.device)

    @property
    def tokenizer_json(self) -> Path:
        """The fast tokenizer's file; raises PlanInfeasible when the model has none."""
        path = self.source / "tokenizer.json"
        if not path.is_file():
            raise PlanInfeasible(
                f"{self.source} has no tokenizer.json.",
                hint="Save the fast tokenizer into the folder with AutoTokenizer's save_pretrained.",
            )
        return path

    def _copy_tokenizer(self) -> None:
        folder = self.work / "tokenizer"
        folder.mkdir(exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
            if (self.source / name).is_file():
                shutil.copyfile(self.source / name, folder / name)
        shutil.copyfile(self.source / "config.json", folder / "config.json")
