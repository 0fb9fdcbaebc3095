"""The conversion of one model, step by step: embedding, every layer, head, config."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import quant
from toolkit.checkpoint.assignment import Assignment, assign
from toolkit.checkpoint.shards import Shards
from toolkit.checkpoint.source import SourceModel
from toolkit.checkpoint.writer import Writer, open_writer
from toolkit.convert import kept
from toolkit.convert.candidates import Candidates
from toolkit.convert.grouping import in_float, quantized
from toolkit.convert.passing import as_kept
from toolkit.convert.search import FOLDER as SEARCH
from toolkit.convert.search import REPORT, Measure, Search, recipes_of
from toolkit.files import write_json
from toolkit.forward.calibration import CalibrationPass, from_text
from toolkit.forward.self_text import SELF, SelfWriter, load_ids, save_ids
from toolkit.models import family_of, parts
from toolkit.quant import kv_cache
from toolkit.quant.float16 import as_dtype
from toolkit.quant.statistics import Wanted
from toolkit.specs import ConversionPlan, ModelSource, Progress
from toolkit.weights import Layer, Linear

if TYPE_CHECKING:
    import torch

    from toolkit.quant.statistics import InputStatistics

STATE_FILE, CALIBRATION = "conversion.json", "calibration.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
#: What transformers' other tokenizers read.
SLOW_TOKENIZER_FILES = ("tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")


class Conversion:
    """Reads shards, calibrates, quantizes and writes; holds one decoder layer and the hidden states."""

    def __init__(self, plan: ConversionPlan, source: ModelSource, work: Path) -> None:
        import torch

        self.plan, self.work, self.folder = plan, work, Path(source.path)
        names = family_of(plan.model.architecture).tensors
        self.source = SourceModel(Shards(self.folder), names, plan.model, device=plan.device)
        self.outlook = kept.Outlook()
        self.candidates: Candidates | None = None
        self.dtype: torch.dtype = getattr(torch, plan.dtype)

    def write(self, progress: Progress, measure: Measure | None = None) -> None:
        """Write the weights, tokenizer files and config.json (last); MEASURE verifies what a search found."""
        if self.plan.auto:
            self._write_searched(progress, measure)
        else:
            self._write(assign(self.plan), progress)
        (self.work / CALIBRATION).unlink(missing_ok=True)

    def _write_searched(self, progress: Progress, measure: Measure | None) -> None:
        import torch

        search = Search(self.plan, self.work)
        with torch.inference_mode():
            search.prepare(self.source.in_float(), lambda: self._calibration_ids(progress), progress)
        self.candidates = search.candidates
        while True:
            made = search.allocation()
            self._write(assign(self.plan, recipes_of(made)), progress)
            if search.is_settled(made, measure):
                break
            self._start_over()
        write_json(self.work / REPORT, search.report(made))
        search.clear()

    def _start_over(self) -> None:
        """Remove what was written, and keep what it was made from."""
        for path in self.work.iterdir():
            if path.name in {STATE_FILE, CALIBRATION, SEARCH}:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _write(self, assignment: Assignment, progress: Progress) -> None:
        import torch

        assignment = self._kept_of(assignment)
        writer = open_writer(self.plan, self.work, assignment=assignment, source=self.folder)
        try:
            with torch.inference_mode():
                if not writer.has("embedding"):
                    writer.write_embedding(self.source.embedding())
                self._write_layers(writer, assignment, progress)
                if not writer.has("head"):
                    writer.write_head(self.source.final_norm(), self.source.head())
            self._copy_tokenizer()
            writer.finish()
        finally:
            writer.close()

    def _kept_of(self, assignment: Assignment) -> Assignment:
        """Remember which groups pass through as the source has them; return the recipe of every group."""
        self.outlook = kept.outlook(self.plan, kept.survey(self.source), assignment)
        return kept.assignment_of_kept(assignment, self.outlook.kept) if self.plan.is_source_kept else assignment

    def _write_layers(self, writer: Writer, assignment: Assignment, progress: Progress) -> None:
        spec = self.plan.model
        step = f"Quantize to {self.plan.recipe.name}"
        is_read = any(self._wanted(assignment, index) for index in range(spec.num_layers))
        pass_ = self._calibration(progress) if is_read or self.plan.kv_cache == "int8" else None
        for index in range(spec.num_layers):
            progress(step, index, spec.num_layers)
            is_done = writer.has(f"layer {index}")
            if is_done and pass_ is None:
                continue
            layer = self.source.layer(index)
            wanted = {} if is_done else self._wanted(assignment, index)
            statistics = pass_.through(in_float(layer), wanted) if pass_ else {}
            if not is_done:
                writer.write_layer(self._quantized(layer, assignment, statistics))
        progress(step, spec.num_layers, spec.num_layers)

    def _wanted(self, assignment: Assignment, index: int) -> dict[str, Wanted]:
        groups = parts.groups(self.plan.model, index)
        recipes = {group: assignment.of[index, group] for group in groups if (index, group) not in self.outlook.kept}
        if self.candidates:  # they are made
            recipes = {}
        kinds = {group: quant.algorithm(recipe).wanted for group, recipe in recipes.items() if recipe}
        cached = kv_cache.WATCHED if self.plan.kv_cache else {}
        return {group: wanted for group, wanted in {**kinds, **cached}.items() if wanted}

    def _quantized(self, layer: Layer, assignment: Assignment, statistics: dict[str, InputStatistics]) -> Layer:
        groups = parts.groups(self.plan.model, layer.index)

        def of_group(name: str) -> dict[str, Linear]:
            recipe = assignment.of[layer.index, name] or quant.get("fp16")
            if (layer.index, name) in self.outlook.kept:
                return as_kept({part: layer.linears[part] for part in groups[name]}, self.plan, self.dtype)
            if self.candidates:
                return self.candidates.of(layer, name, recipe)
            return quantized(self.plan, layer, name, recipe=recipe, statistics=statistics.get(name))

        linears = {
            part: dataclasses.replace(linear, bias=self._bias(layer, part))
            for group in groups
            for part, linear in of_group(group).items()
        }
        scalars = kv_cache.scales(self.plan.kv_cache, statistics) if self.plan.kv_cache else {}
        return dataclasses.replace(layer, linears=linears, scalars=scalars)

    def _bias(self, layer: Layer, part: str) -> torch.Tensor | None:
        bias = layer.linears[part].bias
        return None if bias is None else as_dtype(bias, self.dtype, f"The bias of layer {layer.index} {part}")

    def _calibration(self, progress: Progress) -> CalibrationPass | None:
        if self.plan.calibration is None:
            return None
        return CalibrationPass(self.plan.model, self.source.embed(self._calibration_ids(progress)))

    def _calibration_ids(self, progress: Progress) -> torch.Tensor:
        spec, asked = self.plan.model, self.plan.calibration
        assert asked, "the caller checked"
        if asked.source != SELF:
            return from_text(asked, self.folder, spec.vocab_size)
        path = self.work / CALIBRATION
        if not path.is_file():
            ids = SelfWriter(self.source.in_float(), spec).write(asked, self.folder, progress)
            save_ids(path, ids)
        return load_ids(path)  # an interrupted conversion goes on with the text it had

    def _copy_tokenizer(self) -> None:
        if self.plan.layout == "hf":  # a model folder has them beside its weights, and a config.json of its own
            _copy_files(self.folder, self.work, (*TOKENIZER_FILES, *SLOW_TOKENIZER_FILES))
            return
        folder = self.work / "tokenizer"
        folder.mkdir(exist_ok=True)
        _copy_files(self.folder, folder, (*TOKENIZER_FILES, "config.json"))


def _copy_files(source: Path, target: Path, names: Iterable[str]) -> None:
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
