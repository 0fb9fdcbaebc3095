"""A libnvidia-ml.so.1 made with gcc: NVML's C functions over GPUs that are told in environment variables."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
typedef struct { unsigned gpu, memory; } rates_t;
typedef struct { unsigned long long total, free, used; } memory_t;
static int fault(void) { const char *said = getenv("NVML_FAULT"); return said ? atoi(said) : 0; }
/* NVML_GPUS: name|major.minor|total MiB|free MiB, one a line */
static int count(void) {
    const char *text = getenv("NVML_GPUS"); int found = 0;
    for (; text && *text; text++) found += *text == '\n';
    return found;
}
static int row(long index, char *name, int *major, int *minor, unsigned long long *total, unsigned long long *left) {
    const char *text = getenv("NVML_GPUS");
    while (index--) text = strchr(text, '\n') + 1;
    return sscanf(text, "%[^|]|%d.%d|%llu|%llu", name, major, minor, total, left) == 5 ? 0 : 999;
}
int nvmlInit_v2(void) { return fault(); }
int nvmlInitWithFlags(unsigned flags) { return fault(); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 999 ? "Unknown Error" : "Some Error"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, getenv("NVML_DRIVER"), size); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = atoi(getenv("NVML_CUDA")); return 0; }
int nvmlDeviceGetCount_v2(unsigned *found) { *found = count(); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = (void *)(long)(index + 1); return 0; }
int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
    int a, b; unsigned long long c, d; char name[96];
    int code = row((long)handle - 1, name, &a, &b, &c, &d);
    strncpy(text, name, size);
    return code;
}
int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
    snprintf(text, size, "GPU-%ld", (long)handle - 1);
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
    int a, b; char name[96]; unsigned long long total, left;
    int code = row((long)handle - 1, name, &a, &b, &total, &left);
    memory->total = total << 20; memory->free = left << 20; memory->used = (total - left) << 20;
    return code;
}
/* NVML_POWER_MW: what every card draws, always; NVML_COUNTS_ENERGY: it has a counter of it as well */
static unsigned power(void) { const char *said = getenv("NVML_POWER_MW"); return said ? atoi(said) : 0; }
int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) {
    *milliwatts = power();
    return *milliwatts ? 0 : 3;
}
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *millijoules) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *millijoules = (unsigned long long)((now.tv_sec + now.tv_nsec / 1e9) * power());
    return getenv("NVML_COUNTS_ENERGY") ? 0 : 3;
}
int nvmlDeviceGetUtilizationRates(void *handle, rates_t *rates) { rates->gpu = 87; rates->memory = 40; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    unsigned long long c, d; char name[96];
    return row((long)handle - 1, name, major, minor, &c, &d);
}
"""


@pytest.fixture(scope="session")
def nvml_folder(tmp_path_factory):
    """A folder with the library, for LD_LIBRARY_PATH."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc to make a libnvidia-ml.so.1")
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "nvml.c").write_text(SOURCE)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", folder / "nvml.c"], check=True)
    return folder


def driver(folder: Path, *gpus: str, version="590.44.01", cuda="13010", fault="") -> dict[str, str]:
    """Return the environment of a process whose driver has these GPUs: `name|8.6|total MiB|free MiB`."""
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "NVML_GPUS": "".join(f"{gpu}\n" for gpu in gpus),
        "NVML_DRIVER": version,
        "NVML_CUDA": cuda,
    }
    return {**environment, "NVML_FAULT": fault} if fault else environment
