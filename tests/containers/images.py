"""Images made of this machine's own Python: no registry is asked, and what runs in them is what runs here."""

import hashlib
import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
#: Another Python, or another list below, is another image.
REPOSITORY = "trtk-test/base"
TAG = f"py{sys.version.split()[0]}-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]}"
BASE = f"{REPOSITORY}:{TAG}"
#: Enough of a system for RUN lines and for a look around.
PROGRAMS = ("sh", "bash", "cat", "mkdir", "rm", "ls", "id", "env", "ln", "cp", "chmod", "install", "sleep")
LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "__pycache__",
}
#: What wheels take from the system without carrying it.
LIBRARIES = {
    *("libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libm.so.6", "libresolv.so.2"),
    *("libnss_dns.so.2", "libnss_files.so.2", "libstdc++.so.6", "libgcc_s.so.1", "libz.so.1"),
    f"libpython{PYTHON}.so.1.0",
}


def base_image(client) -> str:
    """Return the name of an image with a shell and this Python, imported into the daemon where it is not there."""
    import docker

    try:
        client.images.get(BASE)
    except docker.errors.ImageNotFound:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            _add_system(archive)
        client.api.import_image_from_data(buffer.getvalue(), repository=REPOSITORY, tag=TAG)
    return BASE


def image(client, name: str, dockerfile: str, files: dict[str, str]) -> str:
    """Build an image FROM the base with a Dockerfile's lines and executable FILES beside it; return its name."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for path, text in {**files, "Dockerfile": f"FROM {base_image(client)}\n{dockerfile}"}.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(text.encode()), 0o755
            archive.addfile(entry, io.BytesIO(text.encode()))
    context.seek(0)
    client.images.build(fileobj=context, custom_context=True, tag=name, rm=True, forcerm=True)
    return name


def _add_system(archive: tarfile.TarFile) -> None:
    interpreter = Path(sys.base_prefix) / "bin" / f"python{PYTHON}"
    library = Path(sysconfig.get_path("stdlib"))
    added: set[str] = set()
    for folder in ("tmp", "dev", "proc", "sys", "etc", "bin", "usr/local/bin"):
        _add_folder(archive, folder, added)
    _add_text(archive, "etc/passwd", "root:x:0:0::/:/bin/sh\n")
    programs = [Path(found) for name in PROGRAMS if (found := shutil.which(name))]
    extensions = list((library / "lib-dynload").glob("*.so"))
    for path in programs:
        _add_file(archive, path.resolve(), f"bin/{path.name}", added)
    for path in {interpreter, *_needed([interpreter, *programs, *extensions]), *_system_libraries()}:
        _add_file(archive, path, str(path).lstrip("/"), added)
    for path in sorted(library.rglob("*")):
        if path.is_file() and not LEFT_OUT & set(path.relative_to(library).parts):
            _add_file(archive, path, str(path).lstrip("/"), added)
    # Debian keeps ensurepip's wheels apart from it.
    for path in sorted(Path("/usr/share/python-wheels").glob("*.whl")):
        _add_file(archive, path, str(path).lstrip("/"), added)
    for name in ("python3", f"python{PYTHON}"):
        _add_link(archive, f"usr/local/bin/{name}", str(interpreter))


def _needed(binaries: list[Path]) -> set[Path]:
    """Return the shared libraries of binaries, the loader among them."""
    listing = subprocess.run(["ldd", *map(str, binaries)], check=False, capture_output=True, text=True).stdout
    return {Path(found) for found in re.findall(r"(/\S+) \(0x", listing)}


def _system_libraries() -> set[Path]:
    listing = subprocess.run(["/sbin/ldconfig", "-p"], check=True, capture_output=True, text=True).stdout
    known = {line.split()[0]: Path(line.split()[-1]) for line in listing.splitlines() if "=>" in line}
    return {known[name] for name in LIBRARIES if name in known}


def _add_file(archive: tarfile.TarFile, path: Path, name: str, added: set[str]) -> None:
    if name in added:
        return
    added.add(name)
    _add_folder(archive, str(Path(name).parent), added)
    entry = archive.gettarinfo(path.resolve(), name)
    entry.uid = entry.gid = 0
    entry.mode |= 0o444
    entry.type, entry.linkname = tarfile.REGTYPE, ""  # no hard links: their targets may be left out
    entry.size = path.resolve().stat().st_size
    with path.open("rb") as stream:
        archive.addfile(entry, stream)


def _add_folder(archive: tarfile.TarFile, name: str, added: set[str]) -> None:
    parents = [parent for parent in reversed(Path(name).parents) if str(parent) != "."]
    for folder in (*map(str, parents), name):
        if folder not in added and folder != ".":
            added.add(folder)
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(entry)


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(text), 0o644
    archive.addfile(entry, io.BytesIO(text.encode()))


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    archive.addfile(entry)
