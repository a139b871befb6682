"""A Weights & Biases server on this computer: answers what the real client asks, and keeps all that it is sent.

It knows no users and keeps no runs; a run that the client says it uploaded is one whose requests were all answered.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API_KEY = "0123456789abcdef0123456789abcdef01234567"
ENTITY = "somebody"


@dataclass
class Wandb:
    """What a running server was sent. Requests to ``/graphql`` are also in ``asked``: (operation, variables)."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refused: str = ""  # the server answers 403 where the body contains this

    def of(self, operation: str) -> list[dict[str, Any]]:
        """Variables of all requests for one GraphQL operation, in order."""
        return [variables for name, variables in self.asked if name == operation]

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to talk to this server and no other."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": API_KEY, "NO_PROXY": "*"}

    def answer(self, operation: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The data of one GraphQL answer; what is not known is answered with nothing."""
        artifact = {"id": "artifact", "state": "PENDING", "artifactSequence": {"id": "s", "latestArtifact": None}}
        bucket = {"id": "run", "name": variables.get("name"), "displayName": variables.get("displayName")}
        project = {"id": "project", "name": variables.get("project"), "entity": {"id": "entity", "name": ENTITY}}
        files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in variables.get("files", ())]
        specs = variables.get("artifactFiles", ())
        stored = [{"node": {"name": s["name"], "uploadUrl": f"{self.url}/upload", "artifact": artifact}} for s in specs]
        manifest = {"id": "manifest", "file": {"uploadUrl": f"{self.url}/upload", "uploadHeaders": []}}
        view = {"id": "view", "name": variables.get("name")}
        known: dict[str, dict[str, Any]] = {
            "UpsertBucket": {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}},
            "CreateRunFiles": {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}},
            "CreateArtifact": {"createArtifact": {"artifact": artifact}},
            "CreateArtifactManifest": {"createArtifactManifest": {"artifactManifest": manifest}},
            "CreateArtifactFiles": {"createArtifactFiles": {"files": {"edges": stored}}},
            "CommitArtifact": {"commitArtifact": {"artifact": {"id": "artifact", "digest": ""}}},
            "UpsertView2": {"upsertView": {"view": view, "inserted": True}},
        }
        viewer = {"id": "user", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}
        return known.get(operation, {"viewer": viewer, "serverInfo": {"features": []}, "project": None})


@contextmanager
def wandb_server() -> Iterator[Wandb]:
    """A server on a free port of this computer, until the ``with`` body ends."""
    wandb = Wandb()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply({})

        def do_PUT(self) -> None:
            self._keep()
            self._reply({})

        def do_POST(self) -> None:
            body = self._keep()
            if wandb.refused and wandb.refused.encode() in body:
                self._reply({"error": "permission denied"}, 403)
            elif self.path == "/graphql":
                request = json.loads(body)
                operation = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
                name, variables = operation[1] if operation else "", request.get("variables") or {}
                wandb.asked.append((name, variables))
                self._reply({"data": wandb.answer(name, variables)})
            else:
                self._reply({"exitcode": None, "limits": {}})

        def _keep(self) -> bytes:
            body = self._chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else self._sized()
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            wandb.paths.append(self.path)
            wandb.bodies.append(body)
            return body

        def _sized(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _chunks(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _reply(self, content: dict[str, Any], status: int = 200) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            """Tests read what was sent, not a log."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *arguments: Any) -> None:
            """A client that goes away in the middle of a request is not this server's error."""

    server = Quiet(("127.0.0.1", 0), Handler)
    wandb.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield wandb
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
