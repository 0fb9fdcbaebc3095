"""What is wrong with a quantized source, or with its shards, is named with the tensor, file or field at fault."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoint import quantized_models as made
from tests.checkpoint.test_sources import opened
from tests.convert.checkpoints import convert_model
from toolkit import convert, models, plan, quant
from toolkit.errors import BuildError, PlanInfeasible
from toolkit.specs import CalibrationSpec, ModelSource

Q = "model.layers.0.self_attn.q_proj."
COMPRESSED = made.compressed("pack-quantized", strategy="group", group=made.GROUP)
FP8 = {"quant_method": "fp8", "activation_scheme": "static"}
BLOCKS = {"quant_method": "fp8", "weight_block_size": [64, 64], "activation_scheme": "dynamic"}


def blocks(weight):
    return made.e4m3(weight, by="block", scale_name="weight_scale_inv", block=64)


def change(folder, name, how):
    """Replace a tensor by what HOW makes of it; None drops it."""
    tensors = load_file(folder / "model.safetensors")
    new = how(tensors.pop(name))
    save_file({**tensors, **({} if new is None else {name: new.contiguous()})}, folder / "model.safetensors")


def refusal(kind, folder):
    with pytest.raises(kind) as caught:
        opened(folder).layer(0)
    return str(caught.value)


def with_value(value):
    def changed(tensor):
        tensor.view(-1)[1] = value
        return tensor

    return changed


@pytest.mark.parametrize(
    ("pack", "config", "name", "value", "word"),
    [
        (made.awq, made.AWQ, "scales", float("nan"), "NaN"),
        (made.gptq, made.GPTQ, "scales", float("inf"), "Inf"),
        (made.packed, COMPRESSED, "weight_scale", float("-inf"), "Inf"),
        (lambda w: made.e4m3(w, inputs=0.1), FP8, "weight", float("nan"), "NaN"),
        (blocks, BLOCKS, "weight_scale_inv", float("nan"), "NaN"),
        (made.eight_bits, made.compressed("int-quantized", strategy="channel"), "weight_scale", float("nan"), "NaN"),
    ],
)
def test_a_value_that_is_no_number_is_named(llama, tmp_path, pack, config, name, value, word):
    folder = tmp_path / "hf"
    made.quantized_copy(llama[0], folder, pack, config)
    change(folder, Q + name, with_value(value))

    assert refusal(BuildError, folder) == f"{Q}{name} in {folder / 'model.safetensors'} holds a {word}."


@pytest.mark.parametrize("name", ["weight_scale", "input_scale"])
def test_a_scale_that_is_no_number_is_named(llama, tmp_path, name):
    folder = tmp_path / "hf"
    made.quantized_copy(llama[0], folder, lambda w: made.e4m3(w, inputs=0.1), FP8)
    change(folder, Q + name, lambda scale: scale * float("nan"))

    assert refusal(BuildError, folder) == f"{Q}{name} in {folder / 'model.safetensors'} holds a NaN."


def test_act_order_is_refused_by_the_config(llama, tmp_path):
    made.quantized_copy(llama[0], tmp_path / "hf", made.gptq, {**made.GPTQ, "desc_act": True})

    with pytest.raises(PlanInfeasible, match="desc_act=true: groups in act-order are no runs of columns"):
        opened(tmp_path / "hf")


@pytest.mark.parametrize("form", ["gptq", "compressed-tensors"])
def test_act_order_is_refused_by_the_tensor_that_has_it(llama, tmp_path, form):
    def shuffled(weight):
        order = (torch.arange(weight.shape[1]) // made.GROUP).flip(0).int()
        if form == "gptq":
            return made.gptq(weight, order=order)
        stored, meant = made.packed(weight)
        return {**stored, "weight_g_idx": order}, meant

    folder = tmp_path / "hf"
    made.quantized_copy(llama[0], folder, shuffled, made.GPTQ if form == "gptq" else COMPRESSED)
    name = Q + ("g_idx" if form == "gptq" else "weight_g_idx")

    assert refusal(BuildError, folder) == (
        f"{name} in {folder} is not in order: the model was quantized with act-order, "
        "and TensorRT-LLM's groups are runs of columns."
    )
    with pytest.raises(BuildError, match="is not in order"):
        convert_model(folder, tmp_path / "out", "int4_rtn")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({**made.AWQ, "version": "gemv"}, "this one says 4 bits and 'gemv'."),
        ({**made.AWQ, "bits": 8}, "this one says 8 bits and 'gemm'."),
        ({**made.GPTQ, "bits": 3}, "trtk reads GPTQ checkpoints of 2, 4, 8 bits; this one has 3."),
        ({**made.GPTQ, "checkpoint_format": "marlin"}, "gptq and gptq_v2; this one is 'marlin'."),
        (
            {**COMPRESSED, "format": "marlin-24"},
            "The checkpoint's compressed-tensors format is 'marlin-24'; trtk reads",
        ),
        ({**COMPRESSED, "sparsity_config": {"format": "sparse-24-bitmask"}}, "trtk does not read compressed sparsity."),
        ({**COMPRESSED, "transform_config": {"a": 1}}, "trtk does not read transform_config (rotated weights)."),
        ({"bits": 4}, "is quantized by the method 'unnamed', which trtk does not read;"),
    ],
)
def test_a_variant_that_is_not_read_is_named(llama, tmp_path, config, sentence):
    made.quantized_copy(llama[0], tmp_path / "hf", made.awq, config)

    with pytest.raises(PlanInfeasible) as caught:
        opened(tmp_path / "hf")

    assert sentence in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("pack", "config", "name", "how", "sentence"),
    [
        (
            made.awq,
            {**made.AWQ, "group_size": 32},
            "scales",
            lambda t: t,
            "has 2 groups for 128 inputs, but quantization_config says groups of 32.",
        ),
        (made.gptq, made.GPTQ, "qweight", lambda t: t.float(), "has dtype F32; trtk expects integers here."),
        (made.gptq, made.GPTQ, "scales", lambda t: t.int(), "has dtype I32; trtk expects F32, F16, BF16 here."),
        (made.gptq, made.GPTQ, "qzeros", lambda _: None, "has no tensor"),
        (made.packed, COMPRESSED, "weight_packed", lambda t: t[:, :-1], "which fit no weight of (128, 128)."),
        (
            blocks,
            BLOCKS,
            "weight_scale_inv",
            lambda t: t[:1],
            "has shape (1, 2), which does not fit blocks of 64 x 64 of a weight of (128, 128).",
        ),
        (
            lambda w: made.e4m3(w, by="row"),
            FP8,
            "weight_scale",
            lambda t: t[:-1],
            "has shape (127, 1), which does not fit rows of a weight of (128, 128).",
        ),
        (made.e4m3, FP8, "weight_scale", lambda _: None, "is F8_E4M3, but has no weight_scale or weight_scale_inv."),
        (made.e4m3, FP8, "weight", lambda t: t.float().to(torch.float8_e5m2), "has dtype F8_E5M2; trtk reads F8_E4M3."),
    ],
)
def test_tensors_that_do_not_fit_are_named(llama, tmp_path, pack, config, name, how, sentence):
    folder = tmp_path / "hf"
    made.quantized_copy(llama[0], folder, pack, config)
    change(folder, Q + name, how)

    message = refusal(BuildError, folder)

    assert message.endswith(sentence) or f"{sentence} {Q}{name}." in message
    assert Q.rstrip(".") in message


def test_a_quantized_weight_without_a_config_is_not_taken_for_a_float(llama, tmp_path):
    made.quantized_copy(llama[0], tmp_path / "hf", made.e4m3, None)

    message = refusal(BuildError, tmp_path / "hf")

    assert message == f"{Q}weight in model.safetensors has dtype F8_E4M3; trtk expects F32, F16, BF16 here."


@pytest.fixture
def copied(llama, tmp_path):
    shutil.copytree(llama[0], tmp_path / "hf")
    return tmp_path / "hf"


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "sub/x.safetensors", "model.bin", 7])
def test_an_index_that_points_out_of_its_folder_is_refused(copied, tmp_path, name):
    shutil.copyfile(copied / "model.safetensors", tmp_path / "outside.safetensors")
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))

    assert refusal(BuildError, copied) == (
        f"{copied / 'model.safetensors.index.json'} names the shard {name!r}, "
        "which is no safetensors file of its own folder."
    )


@pytest.mark.parametrize("content", ["[]", '{"weight_map": 3}', '{"weight_map": [1]}', "{", '{"metadata": {}}'])
def test_an_index_that_is_none_is_named(copied, content):
    (copied / "model.safetensors.index.json").write_text(content)

    assert refusal(BuildError, copied).startswith(f"{copied / 'model.safetensors.index.json'} is damaged: ")


def test_a_tensor_in_two_shards_is_named_with_both(copied):
    norm = {"model.norm.weight": torch.ones(128)}
    save_file(norm, copied / "more.safetensors")

    assert refusal(BuildError, copied) == (
        f"{copied} holds model.norm.weight twice: in model.safetensors and in more.safetensors."
    )


def test_an_index_that_disagrees_with_the_shards_is_named(copied):
    names = list(load_file(copied / "model.safetensors"))
    index = {"weight_map": {**dict.fromkeys(names, "model.safetensors"), "model.extra.weight": "model.safetensors"}}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index))

    assert refusal(BuildError, copied) == (
        f"{copied / 'model.safetensors.index.json'} says that model.extra.weight is in model.safetensors, "
        "but no shard has it."
    )


def test_a_pickle_behind_the_name_of_a_shard_is_never_unpickled(copied, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    torch.save(Trap(), tmp_path / "weights.bin")
    (copied / "model.safetensors").unlink()
    (copied / "model.safetensors").symlink_to(tmp_path / "weights.bin")

    assert "is no safetensors file" in refusal(BuildError, copied)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "header",
    [b"[]", b'{"a": 1}', b'{"a": {}}', b'{"a": {"data_offsets": ["x", "y"]}}', b'{"a": {"data_offsets": [0]}}'],
)
def test_a_header_of_another_shape_is_named(copied, header):
    (copied / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)

    assert refusal(BuildError, copied).startswith(f"The header of {copied / 'model.safetensors'} is damaged: ")


def test_a_header_that_safetensors_itself_refuses_is_named(copied):
    header = b'{"model.layers.0.self_attn.q_proj.weight": {"dtype": "F16", "shape": [9, 9], "data_offsets": [0, 4]}}'
    (copied / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"1234")

    assert refusal(BuildError, copied).startswith(f"{copied / 'model.safetensors'} is damaged: ")


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64, torch.complex64])
def test_a_weight_of_another_dtype_is_named(copied, dtype):
    change(copied, f"{Q}weight", lambda weight: weight.to(dtype))

    assert "trtk expects F32, F16, BF16 here." in refusal(BuildError, copied)


def test_activations_that_overflow_in_calibration_are_named(copied, tmp_path):
    change(copied, "model.layers.0.mlp.up_proj.weight", lambda weight: torch.full_like(weight.float(), 1e38))
    (tmp_path / "text.txt").write_text("Words and more words. " * 200)
    source = ModelSource(name="tiny", path=str(copied), revision="local")
    calibration = CalibrationSpec(source=str(tmp_path / "text.txt"), samples=2, length=32)
    made_plan = plan.conversion(models.read(source), quant.get("fp8"), calibration=calibration)

    with pytest.raises(BuildError, match=r"The input of layer 0 mlp.proj becomes NaN or Inf during calibration"):
        convert.run(made_plan, source, tmp_path / "out")


def test_logits_that_overflow_in_self_written_text_are_said(copied, tmp_path):
    change(copied, "model.layers.0.mlp.up_proj.weight", lambda weight: torch.full_like(weight.float(), 1e38))

    with pytest.raises(BuildError, match="logits become NaN or Inf when it writes its calibration text"):
        convert_model(copied, tmp_path / "out", "fp8")
