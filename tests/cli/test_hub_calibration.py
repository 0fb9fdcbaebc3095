"""`--calib hf:NAME` gives the bytes that a local file of the same rows gives, and knows them again by their commit."""

import json
import subprocess
import sys

from tests.models.hub_stand_in import Hub, Repository, start
from tests.models.test_hub import environment_of
from tests.models.test_hub_text import COMMIT, rows


def quantize(folder, target, calib, environment):
    """Return (exit code, JSON result) of a run that knows only the stand-in hub."""
    line = [sys.executable, "-m", "toolkit.cli", "quantize", str(folder), "--quant", "int4", "-o", str(target)]
    asked = ["--calib", calib, "--calib-samples", "2", "--calib-length", "32", "--json"]
    done = subprocess.run([*line, *asked], env=environment, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, json.loads(done.stdout) if done.returncode == 0 else done.stderr


def test_a_hub_data_set_calibrates_like_a_file_of_its_rows(llama, tmp_path):
    hub = Hub({"datasets/org/texts": Repository(COMMIT, {"data/train.jsonl": rows("word")})})
    server = start(hub)
    environment = environment_of(hub, tmp_path / "hf")
    (tmp_path / "rows.jsonl").write_bytes(rows("word"))

    made = quantize(llama[0], tmp_path / "hub", "hf:org/texts", environment)
    again = quantize(llama[0], tmp_path / "hub", f"hf:org/texts@{COMMIT}", environment)
    local = quantize(llama[0], tmp_path / "local", str(tmp_path / "rows.jsonl"), environment)
    short = quantize(llama[0], tmp_path / "none", "hf:org/texts:test", environment)
    server.shutdown()
    server.server_close()

    assert [(code, said["is_reused"]) for code, said in (made, again, local)] == [(0, False), (0, True), (0, False)]
    assert (tmp_path / "hub/rank0.safetensors").read_bytes() == (tmp_path / "local/rank0.safetensors").read_bytes()
    assert short[0] == 2
    assert "org/texts has no file of the split 'test'; it has data/train.jsonl." in short[1]
