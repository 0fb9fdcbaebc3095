"""The release catalogue against Triton's compatibility page and the security floor."""

import pytest

from toolkit import releases
from toolkit.errors import UnknownName

#: Tag → Triton, TensorRT-LLM, TensorRT, CUDA, Python: typed from the compatibility page and the release tags.
PAGE = """
26.07 2.71.0 1.2.1        10.14.1.48 13.1.0 3.12.3
26.06 2.70.0 1.2.1        10.14.1.48 13.1.0 3.12.3
26.05 2.69.0 1.2.1        10.14.1.48 13.1.0 3.12.3
26.04 2.68.0 1.2.1        10.14.1.48 13.1.0 3.12.3
26.03 2.67.0 1.2.0        10.14.1.48 13.1.0 3.12.3
26.02 2.66.0 1.1.0        10.13.3.9  13.0.2 3.12.3
26.01 2.65.0 1.1.0        10.13.3.9  13.0.2 3.12.3
25.12 2.64.0 1.1.0        10.13.3.9  13.0.2 3.12.3
25.11 2.63.0 1.0.3.2510   10.13.3.9  13.0.2 3.12.3
25.10 2.62.0 1.0.0        10.11.0.33 12.9.1 3.12.3
25.09 2.61.0 1.0.0        10.11.0.33 12.9.1 3.12.3
25.08 2.60.0 0.21.0       10.11.0.33 12.9.0 3.12.3
25.07 2.59.1 0.20.0       10.10.0.31 12.9.0 3.12.3
25.06 2.59.0 0.20.0       10.10.0.31 12.9.0 3.12.3
25.05 2.58.0 0.19.0       10.9.0.34  12.8.1 3.12.3
25.04 2.57.0 0.18.2       10.9.0.34  12.8.1 3.12.3
25.03 2.56.0 0.18.0       10.9.0.34  12.8.1 3.12.3
25.02 2.55.0 0.17.0.post1 10.8.0.43  12.8.0 3.12.3
25.01 2.54.0 0.17.0       10.8.0.43  12.8.0 3.12.3
24.12 2.53.0 0.16.0       10.7.0     12.6.3 3.12.3
24.11 2.52.0 0.15.0       10.6.0     12.6.3 3.10.12
24.10 2.51.0 0.14.0       10.4.0     12.5.1 3.10.12
24.09 2.50.0 0.13.0       10.4.0     12.5.1 3.10.12
24.08 2.49.0 0.12.0       10.3.0     12.5.1 3.10.12
24.07 2.48.0 0.11.0       10.1.0     12.4.1 3.10.12
"""
each_release = pytest.mark.parametrize("release", releases.catalogue(), ids=lambda release: release.name)


def test_the_catalogue_is_the_compatibility_page_newest_first():
    found = [(r.name, r.triton, r.tensorrt_llm, r.tensorrt, r.cuda, r.python) for r in releases.catalogue()]
    assert found == [tuple(line.split()) for line in PAGE.split("\n") if line]


@each_release
def test_the_image_is_the_tag_of_nvidias_registry(release):
    assert release.image == f"nvcr.io/nvidia/tritonserver:{release.name}-trtllm-python-py3"
    assert releases.get(release.image) == release


@each_release
def test_the_llm_api_begins_with_tensorrt_llm_1(release):
    has_llm_api = int(release.tensorrt_llm.split(".")[0]) >= 1
    assert release.flows == (("engine", "llmapi") if has_llm_api else ("engine",))


@each_release
def test_a_release_is_sourced_and_says_what_is_inferred(release):
    assert all(source.startswith("https://") for source in release.sources)
    is_tag_seen = len(release.sources) == 2
    assert is_tag_seen or "inferred" in release.notes or "counted" in release.notes


def test_26_07_is_the_default_and_the_only_one_at_the_security_floor():
    assert releases.default().name == releases.get("auto").name == "26.07"
    assert [release.name for release in releases.catalogue() if release.is_security_floor_met] == ["26.07"]


def test_an_unknown_release_names_the_known_ones():
    with pytest.raises(UnknownName) as caught:
        releases.get("26.08")
    assert "26.07" in caught.value.nearest


def test_a_key_that_no_release_has_is_an_error(tmp_path):
    path = tmp_path / "27.01.toml"
    path.write_text('name = "27.01"\ntrt = "11"\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"27\.01\.toml has keys that Release does not have: trt"):
        releases.read(path)
