"""The GPU catalogue: found however a card is spelled, plausible, and equal to the published figures."""

import itertools

import pytest

from toolkit import gpus
from toolkit.errors import UnknownName
from toolkit.quant import matrix
from toolkit.specs import GpuSpec

CARDS = [gpu for gpu in gpus.catalogue() if not gpu.is_cpu]
each_card = pytest.mark.parametrize("gpu", CARDS, ids=lambda gpu: gpu.name)

#: name → SM, GiB, memory type, GB/s, dense TFLOPS by dtype, NVLink GB/s, W, SMs: typed from the vendors' tables.
PUBLISHED = {
    "t4": (75, 16, "GDDR6", 320, {"fp16": 65, "fp16_acc16": 65, "int8": 130}, 0, 70, 40),
    "a4500": (86, 20, "GDDR6", 640, {"fp16": 94.6, "fp16_acc16": 94.6, "int8": 189.2}, 112.5, 200, 56),
    "a100-80gb-sxm": (80, 80, "HBM2e", 2039, {"fp16": 312, "fp16_acc16": 312, "int8": 624}, 600, 400, 108),
    "rtx-3090": (86, 24, "GDDR6X", 936.2, {"fp16": 71.2, "fp16_acc16": 142.3, "int8": 284.7}, 112.5, 350, 82),
    "l4": (89, 24, "GDDR6", 300, {"fp16": 121, "fp16_acc16": 121, "fp8": 242, "int8": 242}, 0, 72, 60),
    "rtx-4090": (
        *(89, 24, "GDDR6X", 1008),
        {"fp16": 165.2, "fp16_acc16": 330.3, "fp8": 330.3, "int8": 660.6},
        *(0, 450, 128),
    ),
    "h100-sxm": (90, 80, "HBM3", 3350, {"fp16": 989, "fp16_acc16": 989, "fp8": 1979, "int8": 1979}, 900, 700, 132),
    "b200": (
        *(100, 180, "HBM3e", 7700),
        {"fp16": 2250, "fp16_acc16": 2250, "fp8": 4500, "int8": 4500, "fp4": 9000},
        *(1800, 1000, 0),
    ),
    "rtx-5090": (
        *(120, 32, "GDDR7", 1792),
        {"fp16": 209.5, "fp16_acc16": 419, "fp8": 419, "int8": 838, "fp4": 1676},
        *(0, 575, 170),
    ),
    "a16": (86, 16, "GDDR6", 200, {"fp16": 17.9, "fp16_acc16": 17.9, "int8": 35.9}, 0, 62.5, 10),
}

#: What nvidia-smi calls a card → our name.
NVIDIA_SMI_NAMES = {
    "Tesla T4": "t4",
    "NVIDIA A10G": "a10g",
    "NVIDIA L4": "l4",
    "NVIDIA L40S": "l40s",
    "NVIDIA RTX A4500": "a4500",
    "NVIDIA RTX 2000 Ada Generation": "rtx-2000-ada",
    "NVIDIA RTX 6000 Ada Generation": "rtx-6000-ada",
    "NVIDIA GeForce RTX 4090": "rtx-4090",
    "NVIDIA A100-PCIE-40GB": "a100-40gb-pcie",
    "NVIDIA A100-SXM4-40GB": "a100-40gb-sxm",
    "NVIDIA A100 80GB PCIe": "a100-80gb-pcie",
    "NVIDIA A100-SXM4-80GB": "a100-80gb-sxm",
    "NVIDIA H100 80GB HBM3": "h100-sxm",
    "NVIDIA H100 PCIe": "h100-pcie",
    "NVIDIA H100 NVL": "h100-nvl",
    "NVIDIA H200": "h200-sxm",
    "NVIDIA GH200 480GB": "gh200-96gb",
    "NVIDIA B200": "b200",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "rtx-pro-6000",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "rtx-pro-6000-server",
    "NVIDIA GB10": "dgx-spark",
}

#: Cards with a published reading of what a process sees, in MiB; of every other card usable memory is a share.
READINGS = {
    "t4": 15095,
    "l4": 22558,
    "l40": 45465,
    "l40s": 45589,
    "a40": 45416,
    "a4000": 15984,
    "a5000": 24114,
    "a6000": 48676,
    "a10g": 22587,
    "a30": 24094,
    "a100-40gb-sxm": 40339,
    "a100-40gb-pcie": 40326,
    "a100-80gb-sxm": 81049,
    "a100-80gb-pcie": 81049,
    "h100-sxm": 81082,
    "h100-pcie": 81008,
    "h200-sxm": 143156,
    "gh200-96gb": 96768,
    "b200": 182631,
    "rtx-4090": 24207,
    "rtx-3090": 24259,
    "rtx-4080": 16049,
    "rtx-5090": 32109,
    "rtx-6000-ada": 48622,
    "rtx-pro-6000-server": 97250,
    "rtx-pro-6000": 97250,
    "rtx-pro-6000-max-q": 97250,
    "gb200": 189471,
    "b300": 275040,
    "gb300": 284208,
    "h100-nvl": 95232,
}
#: With ECC on, GDDR6 gives up a sixteenth and the driver some more: the readings of L4 and A10G, for their kind.
ECC_SHARE_CARDS = {"a2", "a10", "a16", "l20"}


def test_the_catalogue_has_54_cards_and_the_cpu():
    assert len(CARDS) == 54
    assert [gpu.name for gpu in gpus.catalogue() if gpu.is_cpu] == ["cpu"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_card_says_what_is_published(name):
    gpu = gpus.get(name)
    assert PUBLISHED[name] == (
        gpu.sm,
        gpu.memory_gib,
        gpu.memory_type,
        gpu.bandwidth_gb_per_s,
        gpu.dense_tflops,
        gpu.nvlink_gb_per_s,
        gpu.tdp_w,
        gpu.sm_count,
    )


@pytest.mark.parametrize(
    "spelling", ["a4500", "A4500", "rtx-a4500", "RTX A4500", "rtx_a4500", "RTXA4500", "NVIDIA RTX A4500", " a4500 "]
)
def test_every_spelling_finds_the_card(spelling):
    assert gpus.get(spelling).name == "a4500"


@pytest.mark.parametrize("spelling", NVIDIA_SMI_NAMES)
def test_the_name_that_nvidia_smi_shows_finds_the_card(spelling):
    assert gpus.get(spelling).name == NVIDIA_SMI_NAMES[spelling]


@pytest.mark.parametrize(
    ("short", "name"),
    [
        ("a100", "a100-80gb-sxm"),
        ("h100", "h100-sxm"),
        ("h200", "h200-sxm"),
        ("gh200", "gh200-96gb"),
        ("4090", "rtx-4090"),
    ],
)
def test_a_short_name_means_the_commonest_variant(short, name):
    assert gpus.get(short).name == name


@pytest.mark.parametrize("gpu", gpus.catalogue(), ids=lambda gpu: gpu.name)
def test_name_title_and_aliases_all_find_the_entry(gpu):
    assert {gpus.get(spelling).name for spelling in (gpu.name, gpu.title, *gpu.aliases)} == {gpu.name}


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("a450", "a4500"), ("NVIDIA RTX A450", "a4500"), ("rtx4091", "rtx-4090"), ("l40x", "l40")]
)
def test_an_unknown_name_suggests_the_nearest(wrong, nearest):
    with pytest.raises(UnknownName) as caught:
        gpus.get(wrong)
    assert nearest in caught.value.nearest


@pytest.mark.parametrize("other", ["NVIDIA GeForce RTX 4090 Laptop GPU", "Quadro RTX 6000", "rtx", "nvidia", ""])
def test_a_name_that_is_another_card_or_none_is_refused(other):
    with pytest.raises(UnknownName):
        gpus.get(other)


@each_card
def test_memory_is_plausible(gpu):
    nominal_mib = gpu.memory_gib * 1024
    assert 8 <= gpu.memory_gib <= 288
    assert 0.91 * nominal_mib <= gpu.memory_usable_mib <= nominal_mib


def test_memory_is_called_measured_only_where_a_reading_is_on_record():
    assert {gpu.name: gpu.memory_usable_mib for gpu in CARDS if gpu.is_memory_measured} == READINGS


@pytest.mark.parametrize("gpu", [gpu for gpu in CARDS if gpu.name not in READINGS], ids=lambda gpu: gpu.name)
def test_memory_without_a_reading_is_a_careful_share_and_says_so(gpu):
    thousandths = 918 if gpu.name in ECC_SHARE_CARDS else 955
    assert gpu.memory_usable_mib == int(gpu.memory_gib * 1024 * thousandths // 1000)
    assert f"Usable memory is an estimate, {thousandths / 1000} of nominal" in gpu.notes


@each_card
def test_bandwidth_and_power_are_plausible(gpu):
    assert 100 <= gpu.bandwidth_gb_per_s <= 8000
    assert 25 <= gpu.tdp_w <= 1400
    assert (gpu.bandwidth_gb_per_s > 900) or "HBM" not in gpu.memory_type
    assert gpu.nvlink_gb_per_s in {0, 112.5, 200, 600, 900, 1800}


@each_card
def test_a_narrower_dtype_is_never_slower(gpu):
    # A tenth of a percent is rounding in the published figures; Blackwell Ultra gave up its INT8 rate.
    rates = [gpu.dense_tflops[dtype] for dtype in ("fp16", "fp16_acc16", "fp8", "fp4") if dtype in gpu.dense_tflops]
    assert all(narrower >= 0.999 * wider for wider, narrower in itertools.pairwise(rates))
    assert gpu.sm == 103 or gpu.dense_tflops["int8"] >= 1.9 * gpu.dense_tflops["fp16"]


@each_card
def test_fp8_begins_with_ada_and_fp4_with_blackwell(gpu):
    assert ("fp8" in gpu.dense_tflops) == (gpu.sm >= 89)
    assert ("fp4" in gpu.dense_tflops) == (gpu.sm >= 100)


@each_card
def test_ridge_point_is_that_of_a_gpu(gpu):
    flop_per_byte = gpu.dense_tflops["fp16"] * 1e12 / (gpu.bandwidth_gb_per_s * 1e9)
    assert 60 <= flop_per_byte <= 1000


@pytest.mark.parametrize("gpu", gpus.catalogue(), ids=lambda gpu: gpu.name)
def test_an_entry_is_sourced_and_known_to_the_matrix(gpu):
    assert gpu.sm in matrix.sms()
    assert gpu.sources
    assert all(source.startswith("https://") for source in gpu.sources)
    assert gpu.confidence in {"high", "medium", "low"}
    assert gpu.confidence != "low" or gpu.notes


def test_a_key_that_no_gpu_has_is_an_error(tmp_path):
    path = tmp_path / "x1.toml"
    path.write_text('name = "x1"\ntitle = "X1"\nsm = 90\nvram = 3\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"x1\.toml has keys that GpuSpec does not have: vram"):
        gpus.read(path)


def test_a_file_named_otherwise_than_its_gpu_is_an_error(tmp_path):
    path = tmp_path / "x1.toml"
    path.write_text('name = "x2"\ntitle = "X2"\nsm = 90\n', encoding="utf-8")
    with pytest.raises(ValueError, match="must have the name 'x1', not 'x2'"):
        gpus.read(path)


def test_an_added_file_is_an_added_gpu(tmp_path):
    (tmp_path / "x1.toml").write_text('name = "x1"\ntitle = "NVIDIA X1"\naliases = ["xx"]\nsm = 90\n', encoding="utf-8")
    assert gpus.read_all(tmp_path) == (GpuSpec(name="x1", title="NVIDIA X1", aliases=("xx",), sm=90),)


def test_two_gpus_that_claim_one_spelling_are_an_error():
    twins = (GpuSpec(name="x1", title="X1", aliases=("rtx-y",), sm=90), GpuSpec(name="y", title="Y", sm=90))
    with pytest.raises(ValueError, match=r"'y' is claimed by both .*'x1'.* and .*'y'"):
        gpus.index(twins)
