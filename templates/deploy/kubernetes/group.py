"""Starts the ranks of one server in several pods: mpirun's way into a pod without ssh, for who knows the group's key.

group.py lead --ranks 16 --slots 8 -- COMMAND…    in the leader: waits for the workers, then becomes mpirun
group.py serve                                    in a worker: runs what its leader asks for
group.py agent HOST COMMAND…                      what mpirun calls in place of ssh
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

PORT = int(os.environ.get("TRTK_GROUP_PORT", "2222"))
KEY_FILE = Path(os.environ.get("TRTK_GROUP_KEY_FILE", "/run/trtk-group/key"))
KEY_BYTES = 16
#: Workers are scheduled, and pull an image of 20 GB.
WAIT_S = float(os.environ.get("TRTK_GROUP_WAIT_S", "1800"))
INTRODUCTION_S = 10.0
#: Of a line between pods; a command of mpirun is a few kilobytes.
LONGEST = 1 << 20
#: What the ranks need of the leader's environment.
PASSED_ON = ("TRTK_", "HF_", "TRANSFORMERS_", "OMPI_MCA_", "NCCL_", "HOME", "USER", "LOGNAME", "PYTHON")


def main(words: list[str]) -> int:
    """Do what was asked; return an exit code."""
    mode = words[0] if words else ""
    if mode == "lead":
        lead(words[1:])
    if mode == "serve":
        serve()
    if mode == "agent" and len(words) > 2:
        return agent(words[1], words[2:])
    return said(__doc__ or "", code=2)


def lead(words: list[str]) -> NoReturn:
    """Wait for every worker, then become mpirun."""
    cut = words.index("--")
    asked, command = dict(zip(words[:cut:2], words[1:cut:2], strict=True)), words[cut + 1 :]
    hosts = hosts_of_group(os.environ["LWS_LEADER_ADDRESS"], int(os.environ["LWS_GROUP_SIZE"]))
    for host in hosts[1:]:
        wait_for(host)
    line = ["mpirun", "--mca", "plm_rsh_agent", f"{sys.executable} {Path(__file__).resolve()} agent"]
    # Every worker is asked by the leader itself, under the name that its pod has.
    line += ["--mca", "plm_rsh_no_tree_spawn", "1", "--mca", "orte_keep_fqdn_hostnames", "1"]
    line += ["--host", ",".join(f"{host}:{asked['--slots']}" for host in hosts), "-n", asked["--ranks"]]
    line += [word for name in sorted(os.environ) if name.startswith(PASSED_ON) for word in ("-x", name)]
    said("Starting the ranks: " + " ".join([*line, *command]))
    os.execvp("mpirun", [*line, *command])


def hosts_of_group(leader: str, size: int) -> list[str]:
    """Return the pods' names: NAME-0.DOMAIN leads, NAME-0-1.DOMAIN is its first worker."""
    own, dot, domain = leader.partition(".")
    return [leader, *(f"{own}-{index}{dot}{domain}" for index in range(1, size))]


def wait_for(host: str) -> None:
    """Return once a worker lets its leader in."""
    until = time.monotonic() + WAIT_S
    while why := refusal(host):
        if time.monotonic() > until:
            raise SystemExit(said(f"{host} was not there in {WAIT_S:.0f} s: {why}."))
        time.sleep(2)


def refusal(host: str) -> str:
    """Return why a worker does not let its leader in; empty where it does."""
    try:
        with introduced(host):
            return ""
    except OSError as error:
        return str(error) or type(error).__name__


def agent(host: str, command: list[str]) -> int:
    """Run a command in a worker's pod as ssh would; return its exit code."""
    try:
        with introduced(host) as stream:
            send(stream, command=" ".join(command))
            while piece := receive(stream):
                if "code" in piece:
                    return int(piece["code"])
                sys.stdout.write(piece["text"])
                sys.stdout.flush()
    except OSError as error:
        return said(f"{host}: {error}.")
    return said(f"{host} went away.")


@contextlib.contextmanager
def introduced(host: str) -> Iterator[TextIO]:
    """Yield a stream to a worker, once both sides have proved that they know the key."""
    with socket.create_connection((host, PORT), timeout=INTRODUCTION_S) as link, link.makefile("rw") as stream:
        challenge = secrets.token_hex(16)
        send(stream, challenge=challenge)
        worker = receive(stream)
        if not is_proved(worker, "worker", challenge):
            raise OSError("it does not know the group's key")
        send(stream, proof=proof("leader", str(worker["challenge"])))
        if not receive(stream).get("welcome"):
            raise OSError("it lets nobody in")
        link.settimeout(None)
        yield stream


def serve() -> NoReturn:
    """Let leaders in, a thread each, until this pod is told to stop."""
    proof("worker", "")  # no key, no worker
    running: set[subprocess.Popen[str]] = set()

    def stop(number: int, frame: object) -> None:
        del frame
        for child in list(running):
            end(child)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    with listener() as door:
        said(f"Waiting for the leader on port {PORT}.")
        while True:
            link, _ = door.accept()
            threading.Thread(target=answer, args=(link, running), daemon=True).start()


def listener() -> socket.socket:
    """Return a socket that listens at every address of the pod: IPv6 and IPv4 where there are both."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("0.0.0.0", PORT))


def answer(link: socket.socket, running: "set[subprocess.Popen[str]]") -> None:
    """Let one leader in, and run the one command that it has."""
    with link, contextlib.suppress(OSError, ValueError, KeyError), link.makefile("rw") as stream:
        link.settimeout(INTRODUCTION_S)
        asked, challenge = receive(stream), secrets.token_hex(16)
        send(stream, proof=proof("worker", str(asked["challenge"])), challenge=challenge)
        if not is_proved(receive(stream), "leader", challenge):
            return
        send(stream, welcome=True)
        link.settimeout(None)
        if wanted := receive(stream):  # nothing: it only asked whether this pod is there
            run(str(wanted["command"]), stream, running)


def run(command: str, stream: TextIO, running: "set[subprocess.Popen[str]]") -> None:
    """Run a command, pass on what it says, and end it when its leader goes away."""
    child = subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    running.add(child)
    threading.Thread(target=outlive, args=(child, stream), daemon=True).start()
    try:
        for line in child.stdout or ():
            send(stream, text=line)
        send(stream, code=child.wait())
    finally:
        end(child)
        running.discard(child)


def outlive(child: "subprocess.Popen[str]", stream: TextIO) -> None:
    """End a command whose leader has closed the line, or says anything more."""
    with contextlib.suppress(OSError, ValueError):
        stream.readline()
    end(child)


def end(child: "subprocess.Popen[str]") -> None:
    """End a command and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)


def proof(side: str, challenge: str) -> str:
    """Return what only a pod with the key can say to a challenge; a side cannot be answered with its own words."""
    key = KEY_FILE.read_bytes().strip()
    if len(key) < KEY_BYTES:
        raise SystemExit(said(f"{KEY_FILE} holds no key of {KEY_BYTES} bytes or more."))
    return hmac.new(key, f"{side}:{challenge}".encode(), hashlib.sha256).hexdigest()


def is_proved(said_by_them: "dict[str, Any]", side: str, challenge: str) -> bool:
    """Whether the other side knows the key."""
    return hmac.compare_digest(str(said_by_them.get("proof", "")), proof(side, challenge))


def send(stream: TextIO, **message: object) -> None:
    """Send one line of JSON."""
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def receive(stream: TextIO) -> "dict[str, Any]":
    """Return one line of JSON; an empty one when the line is closed."""
    line = stream.readline(LONGEST)
    found = json.loads(line) if line else {}
    return found if isinstance(found, dict) else {}


def said(sentence: str, *, code: int = 1) -> int:
    """Say it in the pod's log; return CODE."""
    print(f"group: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 - this is its log
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
