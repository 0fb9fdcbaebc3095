"""What was found on a machine against what a card and a release need: pure, line by line, each with what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from toolkit.machine import drivers
from toolkit.machine.facts import Facts
from toolkit.specs import GpuSpec, Release
from toolkit.specs.machine import LocalGpu

OK, WARN, FAIL = "ok", "warn", "fail"
GB = 1e9
#: The serving image is about 14 GB as it is pulled, and twice that unpacked.
IMAGE_BYTES = 30e9
ROOM_BYTES = 5e9
#: Below this an 8B model's weights do not even pass through.
LITTLE_MEMORY_BYTES = 4e9
#: Python models of Triton map one MB each and more under load; Docker's default of 64 MB is known to be too small.
SHM_BYTES = 256 << 20
LITTLE_SHM_BYTES = 32 << 20
#: The first release with the fix of CVE-2026-24260, a way out of the container (NVIDIA's bulletin 5850).
SAFE_TOOLKIT = "1.19.1"
#: A card with less of its memory free has another user.
FREE_SHARE = 0.8
TOOLKIT_URL = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of `trtk doctor`."""

    name: str
    status: str  # ok, warn, fail
    found: str
    hint: str = ""  # what to do; empty when nothing is


def judge(facts: Facts, *, gpu: GpuSpec, release: Release) -> list[Check]:
    """Return every line; `fail` stands only at what a build for GPU and its serving here cannot do without."""
    checks = [*_gpu_lines(facts, gpu, release), *_docker_lines(facts, gpu), *_packages(facts, gpu)]
    return [*checks, *_disk(facts, gpu), _memory(facts), _shm(facts, gpu), *_ports(facts), _hub(facts)]


def _gpu_lines(facts: Facts, gpu: GpuSpec, release: Release) -> Iterable[Check]:
    nvml, worst = facts.nvml, WARN if gpu.is_cpu else FAIL
    if nvml.fault:
        hint = "" if gpu.is_cpu else nvml.hint
        return [Check(name="NVIDIA driver", status=OK if gpu.is_cpu else FAIL, found=nvml.fault, hint=hint)]
    lines = [_driver(facts, release, worst=worst)]
    lines += [_card(index, card) for index, card in enumerate(nvml.gpus)]
    if not gpu.is_cpu and not any(card.sm == gpu.sm for card in nvml.gpus):
        found = ", ".join(sorted({f"{card.title} (sm_{card.sm})" for card in nvml.gpus})) or "no GPU at all"
        lines.append(
            Check(
                name="asked GPU",
                status=FAIL,
                found=f"{gpu.title} (sm_{gpu.sm}) is not here: {found}",
                hint="Build a bundle here and start it on that machine: trtk build … --builder defer",
            )
        )
    return lines


def _driver(facts: Facts, release: Release, *, worst: str) -> Check:
    needed, version = drivers.needed_for(release.cuda), facts.nvml.driver
    found = f"{version}, CUDA {facts.nvml.cuda}; release {release.name} has CUDA {release.cuda}"
    if drivers.is_at_least(version, needed.released_with):
        return Check(name="NVIDIA driver", status=OK, found=found)
    if drivers.is_at_least(version, needed.oldest):
        hint = f"It runs, without what is newer than the driver; {needed.released_with} has everything."
        return Check(name="NVIDIA driver", status=WARN, found=found, hint=hint)
    hint = f"Update the driver to {needed.released_with} or newer, or take an older --release (`trtk releases`)."
    return Check(name="NVIDIA driver", status=worst, found=found, hint=hint)


def _card(index: int, card: LocalGpu) -> Check:
    known = card.name or "not in the catalogue"
    found = (
        f"{card.title} (sm_{card.sm}, {known}): {card.memory_free_mib} of {card.memory_total_mib} MiB free, {card.uuid}"
    )
    if card.memory_free_mib < FREE_SHARE * card.memory_total_mib:
        hint = "Another process holds memory: `nvidia-smi` shows which."
        return Check(name=f"GPU {index}", status=WARN, found=found, hint=hint)
    hint = "" if card.name else "Give --gpu a card of the same SM and memory; `trtk gpus` lists them."
    return Check(name=f"GPU {index}", status=OK if card.name else WARN, found=found, hint=hint)


def _docker_lines(facts: Facts, gpu: GpuSpec) -> Iterable[Check]:
    docker = facts.docker
    if docker.fault and gpu.is_cpu:
        return [Check(name="Docker", status=OK, found=f"not needed for the CPU; {docker.fault}")]
    if docker.fault:
        return [Check(name="Docker", status=FAIL, found=docker.fault, hint=docker.hint)]
    lines = [Check(name="Docker", status=OK, found=f"daemon {docker.version}")]
    if gpu.is_cpu:
        return lines
    name, version = "NVIDIA container toolkit", facts.nvidia_ctk
    if not docker.has_nvidia:
        hint = "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
        lines.append(
            Check(
                name=name,
                status=FAIL,
                found="the daemon cannot give GPUs to containers",
                hint=hint if version else f"Install it: {TOOLKIT_URL}",
            )
        )
    elif version and version != "unknown" and not drivers.is_at_least(version, SAFE_TOOLKIT):
        hint = f"Update it to {SAFE_TOOLKIT} or newer: a container could break out (CVE-2026-24260)."
        lines.append(Check(name=name, status=WARN, found=version, hint=hint))
    else:
        lines.append(Check(name=name, status=OK, found=version or "on the daemon's machine"))
    return lines


def _packages(facts: Facts, gpu: GpuSpec) -> Iterable[Check]:
    wanted = "cpu" if gpu.is_cpu else "gpu"
    for extra in ("convert", wanted):
        missing = facts.missing_packages.get(extra, ())
        found = f"not installed: {', '.join(missing)}" if missing else "all installed"
        hint = f"pip install 'trtk[{extra}]'" if missing else ""
        yield Check(name=f"packages of trtk[{extra}]", status=FAIL if missing else OK, found=found, hint=hint)


def _disk(facts: Facts, gpu: GpuSpec) -> Iterable[Check]:
    for folder, free in facts.free_bytes.items():
        needed = IMAGE_BYTES if folder == facts.docker.root and not gpu.is_cpu else ROOM_BYTES
        found = f"{free / GB:.1f} GB free"
        hint = f"Free space: {needed / GB:.0f} GB are little for it. `trtk cache gc` lets go of old builds."
        status = OK if free >= needed else WARN
        yield Check(name=f"disk {folder}", status=status, found=found, hint="" if status == OK else hint)


def _memory(facts: Facts) -> Check:
    found = f"{facts.available_bytes / GB:.1f} of {facts.memory_bytes / GB:.1f} GB available"
    if facts.available_bytes < LITTLE_MEMORY_BYTES:
        hint = "Compiling needs about twice a rank's weights, quantizing a few layers."
        return Check(name="memory", status=WARN, found=found, hint=hint)
    return Check(name="memory", status=OK, found=found)


def _shm(facts: Facts, gpu: GpuSpec) -> Check:
    found = f"{facts.shm_bytes / 2**20:.0f} MiB"
    if facts.shm_bytes >= SHM_BYTES or not gpu.is_cpu:  # a container gets its own
        return Check(name="/dev/shm", status=OK, found=found)
    status = FAIL if facts.shm_bytes < LITTLE_SHM_BYTES else WARN
    hint = "Triton's Python models talk through it: docker run --shm-size 2g, or mount a larger tmpfs."
    return Check(name="/dev/shm", status=status, found=found, hint=hint)


def _ports(facts: Facts) -> Iterable[Check]:
    for port in facts.ports:
        holder = port.holder or "another user's process"
        hint = "" if port.is_free else "Give `trtk serve` other ports, or stop that process."
        yield Check(
            name=f"port {port.number}",
            status=OK if port.is_free else WARN,
            found="free" if port.is_free else f"taken by {holder}",
            hint=hint,
        )


def _hub(facts: Facts) -> Check:
    said = "a token is set" if facts.has_token else "no token"
    if facts.is_offline:
        return Check(name="model hub", status=OK, found=f"offline: only what is in the cache; {said}")
    hint = "" if facts.has_token else f"Gated models need one: {facts.hub}/settings/tokens, then HF_TOKEN."
    return Check(name="model hub", status=OK, found=f"{facts.hub}; {said}", hint=hint)
