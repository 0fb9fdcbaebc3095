"""A model hub on loopback: the part of the Hugging Face hub's API that a download uses, and a log of what was asked."""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """One model: its files, its one commit, and what is wrong with it."""

    commit: str
    files: dict[str, bytes]
    branch: str = "main"
    is_gated: bool = False
    #: The first GET of this file ends after half of it.
    cut: str = ""
    #: The first GET of this file stops after half of it until somebody sets `go_on`.
    stall: str = ""
    go_on: threading.Event = field(default_factory=threading.Event)
    #: Every GET of this file brings one wrong byte, and its true sha256 in the headers.
    damage: str = ""


@dataclass
class Asked:
    method: str
    path: str
    byte_range: str = ""


@dataclass
class Hub:
    """The server's repositories and log; a data set's name begins with `datasets/`."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    log: list[Asked] = field(default_factory=list)
    is_down: bool = False
    url: str = ""

    def fetched(self) -> set[str]:
        """Return the names of the files whose bytes were asked for."""
        return {
            asked.path.rsplit("/", 1)[1] for asked in self.log if asked.method == "GET" and "/resolve/" in asked.path
        }


def start(hub: Hub) -> ThreadingHTTPServer:
    """Serve HUB on a free loopback port, in a thread."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format, *args):
        """Stay silent."""

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.log.append(Asked(self.command, path, self.headers.get("Range", "")))
        if self.hub.is_down:
            self._refuse(500, "", "The hub is having a rest")
            return
        kind = "datasets/" if path.startswith(("/api/datasets/", "/datasets/")) else ""
        for prefix in ("/api/models/", "/api/datasets/"):
            if path.startswith(prefix):
                self._api(kind, path.removeprefix(prefix).split("/"))
                return
        self._file(kind, path.removeprefix(f"/{kind}").split("/"))

    def _found(self, kind, owner, name, revision):
        repository = self.hub.repositories.get(f"{kind}{owner}/{name}")
        if repository is None:
            self._refuse(404, "RepoNotFound", "Repository not found")
        elif revision not in {repository.branch, repository.commit}:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return repository
        return None

    def _api(self, kind, parts):
        """Answer org/name, org/name/revision/REV and org/name/tree/COMMIT."""
        owner, name, what, revision = (*parts, "revision", "main")[:4] if len(parts) == 2 else parts[:4]
        repository = self._found(kind, owner, name, revision)
        if repository is None:
            return
        files = [
            {"type": "file", "path": path, "rfilename": path, "size": len(content), "oid": _etag(content)}
            for path, content in repository.files.items()
        ]
        whole = {"id": f"{owner}/{name}", "sha": repository.commit, "siblings": files, "tags": []}
        self._send(json.dumps(files if what == "tree" else whole).encode(), {"Content-Type": "application/json"})

    def _file(self, kind, parts):
        """Answer org/name/resolve/COMMIT/FILE, with ranges."""
        owner, name, _, revision, path = *parts[:4], "/".join(parts[4:])
        repository = self._found(kind, owner, name, revision)
        if repository is None:
            return
        if repository.is_gated:
            self._refuse(403, "GatedRepo", "Access to this model is restricted")
            return
        content = repository.files[path]
        headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        if path.endswith(".safetensors"):  # large files have their sha256 for a name
            headers |= {"X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        if self.command == "GET" and repository.damage == path:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if self.command == "GET" and repository.stall == path:
            repository.stall = ""
            self._send(content, headers, only=len(content) // 2)
            repository.go_on.wait(60)
            return
        if self.command == "GET" and repository.cut == path:
            repository.cut = ""
            self._send(content, headers, only=len(content) // 2)
            return
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(content[start:], headers, status=206 if wanted else 200)

    def _refuse(self, status, code, message):
        self._send(json.dumps({"error": message}).encode(), {"X-Error-Code": code, "X-Error-Message": message}, status)

    def _send(self, body, headers, status=200, *, only=None):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:only])
        if only is not None:
            self.close_connection = True


def _etag(content):
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
