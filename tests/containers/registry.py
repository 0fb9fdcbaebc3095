"""A stand-in for an image registry: one image of one layer over HTTP, as the registry's API says."""

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import random
import tarfile
import threading

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
NAME = "trtk-test/pulled"


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Registry:
    """What the registry has; `status` other than 200 is its answer to every manifest."""

    def __init__(self, *, layer_bytes: int = 3 << 20, status: int = 200) -> None:
        self.status = status
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as archive:
            entry = tarfile.TarInfo("content")
            entry.size = layer_bytes
            archive.addfile(entry, io.BytesIO(random.Random(0).randbytes(layer_bytes)))
        packed = gzip.compress(layer.getvalue(), 1, mtime=0)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [digest(layer.getvalue())]},
            }
        ).encode()
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": described("application/vnd.docker.container.image.v1+json", config),
                "layers": [described("application/vnd.docker.image.rootfs.diff.tar.gzip", packed)],
            }
        ).encode()
        self.blobs = {digest(content): content for content in (config, packed)}
        self.image_id = digest(config)


def described(kind: str, content: bytes) -> dict:
    return {"mediaType": kind, "size": len(content), "digest": digest(content)}


@contextlib.contextmanager
def serving(registry: Registry):
    """Yield HOST:PORT of the registry on loopback, which daemons take without TLS."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            last = self.path.rpartition("/")[2]
            if self.path == "/v2/":
                self.answer(200, b"{}")
            elif "/manifests/" in self.path and registry.status == 200:
                self.answer(200, registry.manifest, MANIFEST)
            elif "/blobs/" in self.path and last in registry.blobs:
                self.answer(200, registry.blobs[last], "application/octet-stream")
            else:
                code = {401: "UNAUTHORIZED", 404: "MANIFEST_UNKNOWN"}.get(registry.status, "UNKNOWN")
                said = {"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}
                self.answer(registry.status, json.dumps(said).encode())

        do_HEAD = do_GET

        def answer(self, status, body, kind="application/json"):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", digest(body))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
