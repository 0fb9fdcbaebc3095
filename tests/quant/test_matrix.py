"""Every cell of the support matrix against the published tables, typed here a second time."""

import pytest

from toolkit.errors import UnknownName
from toolkit.quant import matrix

SMS = (0, 75, 80, 86, 87, 89, 90, 100, 103, 110, 120, 121)

#: Y runs, - does not, ? unconfirmed. The columns of the published tables are 80 86 89 90 100 103 120;
#: 0, 75, 87, 110 and 121 are this project's own decisions, and so is - on 100 to 110 where the tables have ?: build()
#: in tensorrt_llm/builder.py raises there for integer weights, SmoothQuant and an int8 KV cache.
ENGINE = """
                                         0 75 80 86 87 89 90 100 103 110 120 121
NONE                                     -  -  Y  Y  ?  Y  Y  Y   Y   ?   Y   ?
W8A16                                    -  -  Y  Y  ?  Y  Y  -   -   -   ?   ?
W4A16                                    -  -  Y  Y  ?  Y  Y  -   -   -   ?   ?
W4A16_AWQ                                -  -  Y  Y  ?  Y  Y  -   -   -   ?   ?
W4A16_GPTQ                               -  -  Y  Y  ?  Y  Y  -   -   -   ?   ?
W8A16_GPTQ                               -  -  ?  ?  ?  ?  ?  -   -   -   ?   ?
W4A8_AWQ                                 -  -  -  -  -  Y  Y  -   -   -   ?   ?
W8A8_SQ_PER_CHANNEL                      -  -  Y  Y  ?  Y  Y  -   -   -   ?   ?
W8A8_SQ_PER_TENSOR_PLUGIN                -  -  Y  Y  ?  Y  Y  -   -   -   ?   ?
W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN     -  -  Y  Y  ?  Y  Y  -   -   -   ?   ?
W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN    -  -  Y  Y  ?  Y  Y  -   -   -   ?   ?
W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN      -  -  Y  Y  ?  Y  Y  -   -   -   ?   ?
FP8                                      -  -  -  -  -  Y  Y  Y   Y   ?   Y   ?
FP8_PER_CHANNEL_PER_TOKEN                -  -  -  -  -  -  Y  -   -   -   ?   ?
FP8_BLOCK_SCALES                         -  -  -  -  -  -  -  -   -   -   -   -
NVFP4                                    -  -  -  -  -  -  -  Y   Y   ?   ?   ?
W4A8_NVFP4_FP8                           -  -  -  -  -  -  -  -   -   -   -   -
W4A16_MXFP4                              -  -  -  -  -  -  -  -   -   -   -   -
W4A8_MXFP4_FP8                           -  -  -  -  -  -  -  -   -   -   -   -
W4A8_MXFP4_MXFP8                         -  -  -  -  -  -  -  -   -   -   -   -
W4A8_GPTQ                                -  -  -  -  -  -  -  -   -   -   -   -
W4A8_QSERVE_PER_GROUP                    -  -  ?  ?  ?  ?  ?  ?   ?   ?   ?   ?
W4A8_QSERVE_PER_CHANNEL                  -  -  ?  ?  ?  ?  ?  ?   ?   ?   ?   ?
"""
LLMAPI = """
                                         0 75 80 86 87 89 90 100 103 110 120 121
NONE                                     -  -  Y  Y  ?  Y  Y  Y   Y   ?   Y   ?
W8A16                                    -  -  ?  ?  ?  ?  ?  ?   ?   ?   ?   ?
W4A16                                    -  -  ?  ?  ?  ?  ?  ?   ?   ?   ?   ?
W4A16_AWQ                                -  -  Y  Y  ?  Y  Y  -   -   -   -   -
W4A16_GPTQ                               -  -  Y  Y  ?  Y  Y  -   -   -   -   -
W8A16_GPTQ                               -  -  -  -  -  -  -  -   -   -   -   -
W4A8_AWQ                                 -  -  -  -  -  Y  Y  -   -   -   -   -
W8A8_SQ_PER_CHANNEL                      -  -  -  -  -  -  -  -   -   -   -   -
W8A8_SQ_PER_TENSOR_PLUGIN                -  -  -  -  -  -  -  -   -   -   -   -
W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN     -  -  -  -  -  -  -  -   -   -   -   -
W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN    -  -  -  -  -  -  -  -   -   -   -   -
W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN      -  -  -  -  -  -  -  -   -   -   -   -
FP8                                      -  -  -  -  -  Y  Y  Y   Y   ?   Y   ?
FP8_PER_CHANNEL_PER_TOKEN                -  -  -  -  -  -  Y  -   -   -   -   -
FP8_BLOCK_SCALES                         -  -  -  -  -  -  Y  Y   Y   ?   -   -
NVFP4                                    -  -  -  -  -  -  -  Y   Y   ?   Y   ?
W4A8_NVFP4_FP8                           -  -  -  -  -  -  -  ?   ?   ?   ?   ?
W4A16_MXFP4                              -  -  -  -  -  -  -  Y   Y   ?   Y   ?
W4A8_MXFP4_FP8                           -  -  -  -  -  -  -  Y   Y   ?   Y   ?
W4A8_MXFP4_MXFP8                         -  -  -  -  -  -  -  Y   Y   ?   Y   ?
W4A8_GPTQ                                -  -  -  -  -  Y  Y  -   -   -   -   -
W4A8_QSERVE_PER_GROUP                    -  -  -  -  -  -  -  -   -   -   -   -
W4A8_QSERVE_PER_CHANNEL                  -  -  -  -  -  -  -  -   -   -   -   -
"""
KV_CACHE_ENGINE = """
                                         0 75 80 86 87 89 90 100 103 110 120 121
NONE                                     -  -  Y  Y  ?  Y  Y  Y   Y   ?   Y   ?
INT8                                     -  -  Y  Y  ?  Y  Y  -   -   -   ?   ?
FP8                                      -  -  ?  ?  ?  Y  Y  Y   Y   ?   Y   ?
"""
KV_CACHE_LLMAPI = """
                                         0 75 80 86 87 89 90 100 103 110 120 121
NONE                                     -  -  Y  Y  ?  Y  Y  Y   Y   ?   Y   ?
INT8                                     -  -  -  -  -  -  -  -   -   -   -   -
FP8                                      -  -  Y  Y  ?  Y  Y  Y   Y   ?   Y   ?
"""


def rows_of(table):
    heading, *lines = table.strip("\n").split("\n")
    assert tuple(int(sm) for sm in heading.split()) == SMS
    return {name: cells for name, *cells in map(str.split, lines)}


def cells_of(supported, unverified):
    assert not set(supported) & set(unverified)
    return ["Y" if sm in supported else "?" if sm in unverified else "-" for sm in SMS]


def test_the_matrix_decides_about_these_sms_flows_and_algorithms():
    assert matrix.sms() == SMS
    assert matrix.flows() == ("engine", "llmapi", "openvino")
    assert matrix.algorithms() == tuple(rows_of(ENGINE)) == tuple(rows_of(LLMAPI))


@pytest.mark.parametrize("quant_algo", rows_of(ENGINE))
@pytest.mark.parametrize(("flow", "table"), [("engine", ENGINE), ("llmapi", LLMAPI)])
def test_every_cell_is_the_published_one(flow, table, quant_algo):
    found = cells_of(matrix.supported_sms(quant_algo, flow), matrix.unverified_sms(quant_algo, flow))
    assert found == rows_of(table)[quant_algo]


@pytest.mark.parametrize("quant_algo", rows_of(ENGINE))
def test_the_cpu_runs_16_bits_and_weight_only_integers(quant_algo):
    runs = quant_algo in {"NONE", "W8A16", "W4A16", "W4A16_AWQ"}
    assert matrix.supported_sms(quant_algo, "openvino") == ((0,) if runs else ())
    assert matrix.unverified_sms(quant_algo, "openvino") == ()


@pytest.mark.parametrize("kv_cache_algo", ["NONE", "INT8", "FP8"])
@pytest.mark.parametrize(("flow", "table"), [("engine", KV_CACHE_ENGINE), ("llmapi", KV_CACHE_LLMAPI)])
def test_every_cell_of_the_kv_cache_is_the_published_one(flow, table, kv_cache_algo):
    supported = matrix.supported_kv_cache_sms(kv_cache_algo, flow)
    found = cells_of(supported, matrix.unverified_kv_cache_sms(kv_cache_algo, flow))
    assert found == rows_of(table)[kv_cache_algo]


def test_no_algorithm_means_16_bits():
    assert matrix.supported_sms(None, "engine") == (80, 86, 89, 90, 100, 103, 120)
    assert matrix.supported_kv_cache_sms(None, "openvino") == (0,)


def test_every_row_has_a_source():
    for flow in matrix.flows():
        assert all(matrix.sources(name, flow) for name in matrix.algorithms())
    assert matrix.sources("W4A8_AWQ", "engine")[1] == "https://github.com/NVIDIA/TensorRT-LLM/issues/1496"


@pytest.mark.parametrize(("quant_algo", "flow", "named"), [("W4A16_AWK", "engine", "W4A16_AWK"), ("FP8", "trt", "trt")])
def test_an_unknown_algorithm_or_flow_is_named(quant_algo, flow, named):
    with pytest.raises(UnknownName, match=named):
        matrix.supported_sms(quant_algo, flow)


@pytest.mark.parametrize("yes", [[], [0, 80, 80], [0, 80, 99]], ids=["missing", "twice", "unknown"])
def test_a_row_that_does_not_decide_each_sm_once_is_an_error(yes):
    row = {"yes": yes, "no": [], "unverified": [], "sources": []}
    flows = {flow: {} for flow in matrix.flows()}
    document = {"sms": [0, 80], "sources": {}, **flows, "engine": {"FP8": row}, "kv_cache": flows}
    with pytest.raises(ValueError, match=r"engine\.FP8 must decide each SM of \[0, 80\] exactly once"):
        matrix.check(document)
