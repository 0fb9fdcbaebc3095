"""Shared pieces: tiny random models with known weights, a cache of their own, no way out of this machine."""

import fcntl
import ipaddress
import json
import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import signal_stacks

# A machine that is busy with other tests takes its time, and that is nothing that is tested.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# Before torch is loaded: threads that spin while they wait take the core from the test beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A test that builds wants to see it done; those of the cache name a folder of their own.
BUILD_CACHE = "TRTK_BUILD_CACHE"
os.environ[BUILD_CACHE] = "off"

# A shell starts what it puts into the background without SIGINT, and every process of the tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: For tests that are marked slow or docker; others have `timeout` of pyproject.toml.
SLOW_TIMEOUT_S = 900

#: Set by `make test` to a folder that survives between runs, so that the demo model is fetched once.
SHARED_CACHE = "TRTK_TEST_CACHE"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `--dist loadfile`, keep the files that share something costly on one worker, too."""
    if config.getoption("dist") != "loadfile":
        return None
    from tests.scheduling import ByUnit

    config.option.loadscopereorder = False  # by number of tests; the order is that of the collection
    return ByUnit(config, log)


def pytest_collection_modifyitems(items):
    """Give those that build images and engines more time; let workers begin with what takes longest."""
    for item in items:
        if {"slow", "docker"} & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))
    if "PYTEST_XDIST_WORKER" in os.environ:
        from tests.scheduling import place_of

        items.sort(key=lambda item: place_of(item.nodeid))


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch):
    """Make every connection beyond this machine an error: a test that needs a hub or a registry is no test."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in {socket.AF_INET, socket.AF_INET6} and not _is_local(address[0]):
            raise AssertionError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


def _is_local(host: str) -> bool:
    return host in {"localhost", ""} or ipaddress.ip_address(host).is_loopback


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path_factory):
    """Keep state of tests apart from the user's, and environment variables of the user out of them."""
    for name in [name for name in os.environ if name.startswith("TRTK_") and name not in {SHARED_CACHE, BUILD_CACHE}]:
        monkeypatch.delenv(name)
    base = tmp_path_factory.getbasetemp()
    monkeypatch.setenv("TRTK_CACHE", os.environ.get(SHARED_CACHE) or str(base / "cache"))
    monkeypatch.setenv("TRTK_STATE", str(tmp_path_factory.mktemp("state")))


@pytest.fixture(scope="session", autouse=True)
def first_signal_stack():
    """The stack for signals that the thread had before the first test."""
    return signal_stacks.signal_stack()


@pytest.fixture(autouse=True)
def own_signal_stack(first_signal_stack):
    """Give the thread back its stack for signals.

    OpenVINO's CPU plugin gives the thread that loads it one for AMX's large frames, and frees it with the plugin. Where
    two plugins go in the order in which they came, the first one's stack is set once more, though it is gone: the next
    signal would end the process without a word.
    """
    yield
    signal_stacks.use(first_signal_stack)


@pytest.fixture(scope="module")
def one_thread():
    """Compute on one thread: those that wait for one another cost more than such small matrices."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Numbers such as 1, 22 and 333 are written in digits.",
    "Grüße aus Köln! 你好，世界。 \U0001f680\U0001f30d",
    "def add(a, b):\n    return a + b\n",
] * 8


def save_tokenizer(folder: Path, vocab_size: int) -> None:
    """Train a small byte-level BPE tokenizer and save it the way Hugging Face does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


#: What tiny models of an architecture need besides Llama's settings.
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
ARCHITECTURE_SETTINGS = {
    "MixtralForCausalLM": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen2MoeForCausalLM": {**EXPERTS, "shared_expert_intermediate_size": 192},
    "Qwen3ForCausalLM": {"head_dim": 32},
    "Qwen3MoeForCausalLM": {**EXPERTS, "head_dim": 32, "norm_topk_prob": True},
    "GemmaForCausalLM": {"head_dim": 32},
    "Gemma2ForCausalLM": {"head_dim": 32, "query_pre_attn_scalar": 24, "sliding_window": 16},
    "Gemma3ForCausalLM": {
        "head_dim": 32,
        "query_pre_attn_scalar": 24,
        "sliding_window": 16,
        "sliding_window_pattern": 2,
    },
    "Phi3ForCausalLM": {"pad_token_id": 0},
}
CONFIGS = {"Gemma3ForCausalLM": "Gemma3TextConfig"}


def save_model(folder: Path, *, architecture: str = "LlamaForCausalLM", **changes):
    """Write a small random model into FOLDER as float16 and return Hugging Face's own model of it, in float32."""
    import torch
    import transformers

    settings = {
        "vocab_size": 320,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **ARCHITECTURE_SETTINGS.get(architecture, {}),
        **changes,
    }
    torch.manual_seed(1)
    name = CONFIGS.get(architecture, architecture.replace("ForCausalLM", "Config"))
    model = getattr(transformers, architecture)(getattr(transformers, name)(**settings)).half()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("norm.weight", "bias")):  # ones and zeros would hide a mistake
                parameter.copy_(parameter + 0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    save_tokenizer(folder, settings["vocab_size"])
    return read_back(folder, architecture)


def read_back(folder: Path, architecture: str):
    """Return Hugging Face's model of a folder in float32, with the embedding scale that it has in float16."""
    import torch
    import transformers

    model = getattr(transformers, architecture).from_pretrained(folder, dtype=torch.float32).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("embed_scale"):  # Gemma multiplies embeddings in the model's dtype
            buffer.copy_(buffer.half())
    return model


#: Its first name: most tests want a Llama.
save_llama = save_model


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """(folder, Hugging Face's model) of a tiny Llama with grouped-query attention and untied head."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    return folder, save_llama(folder)


@pytest.fixture
def small_disk(tmp_path):
    """Makes file systems of a size (`4m`) below tmp_path; the test is skipped where that needs rights it lacks."""
    made = []

    def make(size, name="disk"):
        disk = tmp_path / name
        disk.mkdir()
        line = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk]
        if subprocess.run(line, check=False, capture_output=True).returncode:
            pytest.skip("only root can mount a small file system")
        made.append(disk)
        return disk

    yield make
    for disk in made:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture(autouse=True)
def alone_on_the_daemon(request):
    """Let one test at a time use the Docker daemon: they look at all of its containers."""
    if request.node.get_closest_marker("docker") is None:
        yield
        return
    with (Path(tempfile.gettempdir()) / "trtk-docker-tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def docker_daemon():
    """The Docker daemon that answers here; the test is skipped where none does."""
    from toolkit import containers
    from toolkit.errors import MissingError

    try:
        daemon = containers.connect()
    except MissingError as missing:
        pytest.skip(str(missing))
    yield daemon
    daemon.close()
