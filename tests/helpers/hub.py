"""A Hub on loopback for the real huggingface_hub client: repositories in memory, and refusals on demand.

``with Hub() as hub:`` serves at ``hub.url``. In a process of its own a client finds it by ``hub.environment``; in this
one ``hub.redirect(monkeypatch)`` sends the client there.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

ERROR_CODES = {404: "RepoNotFound"}
"""What the Hub says in a header beside the status."""


@dataclass
class Repository:
    """Files by path at the head of ``main``, and what was proposed on top of them.

    Attributes:
        files: Content by path.
        pull_requests: What each adds or changes.
        messages: The summary of every commit.
        private: Whether only its owners see it.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    pull_requests: list[dict[str, bytes]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    private: bool = False

    @property
    def head(self) -> str:
        """The commit: it changes when a file does."""
        content = "".join(f"{path}{blob(data)}" for path, data in sorted(self.files.items()))
        return hashlib.sha1(content.encode()).hexdigest()


@dataclass
class Hub:
    """The server.

    Attributes:
        repositories: By ``models/org/name``, ``datasets/org/name`` or ``spaces/org/name``.
        refusals: The status to answer with, by a part of the path: ``{"/commit/": 409}``; ``{"/": 500}`` is everything.
            ``"hang"`` is no answer, ``"close"`` a connection that ends without one.
        invalid: What is wrong with every card that it is asked to validate.
        requests: Method and path of each request, in their order.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    refusals: dict[str, int | Literal["hang", "close"]] = field(default_factory=dict)
    invalid: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __enter__(self) -> "Hub":
        hub = self

        class Answers(_Answers):
            served = hub

        self.over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it is served."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, home: Path) -> dict[str, str]:
        """What makes a client in another process talk to this Hub alone."""
        return {"HF_ENDPOINT": self.url, "HF_TOKEN": "hf_test", "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}

    def redirect(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        """Make the client of this process talk to this Hub alone."""
        from huggingface_hub import constants

        for name, value in self.environment(home).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", self.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", home / "datasets")


def blob(data: bytes) -> str:
    """The id that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Answers(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Nothing: tests look at ``Hub.requests``."""

    def _answer(self) -> None:
        target = urlsplit(self.path)
        path, query = unquote(target.path), parse_qs(target.query)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.served.requests.append(f"{self.command} {path}")
        for part, refusal in self.served.refusals.items():
            if part in path:
                return self._refuse(refusal)
        match path.strip("/").split("/"):
            case ["api", "validate-yaml"]:
                errors = [{"message": message} for message in self.served.invalid]
                return self._send(400 if errors else 200, {"errors": errors, "warnings": []})
            case ["api", "repos", "create"]:
                return self._create(json.loads(body))
            case ["api", kind, owner, name, "preupload", _]:
                return self._preupload(f"{kind}/{owner}/{name}", json.loads(body))
            case ["api", kind, owner, name, "commit", _]:
                return self._commit(f"{kind}/{owner}/{name}", body, "create_pr" in query)
            case ["api", kind, owner, name, "tree", *_]:
                return self._tree(f"{kind}/{owner}/{name}")
            case ["api", kind, owner, name, *_]:
                return self._about(f"{kind}/{owner}/{name}")
            case [("datasets" | "spaces") as kind, owner, name, ("resolve" | "raw"), _, *file]:
                return self._file(f"{kind}/{owner}/{name}", "/".join(file))
            case [owner, name, ("resolve" | "raw"), _, *file]:
                return self._file(f"models/{owner}/{name}", "/".join(file))
        return self._send(404, {"error": "There is no such page."})

    def _refuse(self, refusal: int | Literal["hang", "close"]) -> None:
        if isinstance(refusal, int):
            return self._send(refusal, {"error": f"refused with {refusal}"})
        if refusal == "hang":
            self.served.over.wait()
        self.close_connection = True
        return None

    def _repository(self, name: str) -> Repository | None:
        found = self.served.repositories.get(name)
        if found is None:
            self._send(404, {"error": "Repository not found"})
        return found

    def _create(self, asked: Mapping[str, Any]) -> None:
        kind, owner = asked.get("type") or "model", asked.get("organization") or "user"
        name = f"{owner}/{asked['name']}"
        key = f"{kind}s/{name}"
        if key in self.served.repositories:
            return self._send(409, {"error": "You already created this repo", "url": f"{self.served.url}/{name}"})
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.served.repositories[key] = Repository(private=private)
        prefix = "" if kind == "model" else f"{kind}s/"
        return self._send(200, {"url": f"{self.served.url}/{prefix}{name}", "name": name, "id": "0"})

    def _preupload(self, name: str, asked: Mapping[str, Any]) -> None:
        if repository := self._repository(name):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "regular",
                    "shouldIgnore": False,
                    "oid": blob(repository.files[file["path"]]) if file["path"] in repository.files else None,
                }
                for file in asked["files"]
            ]
            self._send(200, {"files": files})

    def _commit(self, name: str, body: bytes, as_pull_request: bool) -> None:
        repository = self._repository(name)
        if repository is None:
            return None
        header, *operations = [json.loads(line) for line in body.splitlines()]
        parent = header["value"].get("parentCommit")
        if parent and parent != repository.head:
            return self._send(412, {"error": "A commit has happened since. Please refresh and try again."})
        changed = {
            operation["value"]["path"]: base64.b64decode(operation["value"]["content"])
            for operation in operations
            if operation["key"] == "file"
        }
        repository.messages.append(header["value"]["summary"])
        answer = {"success": True, "hookOutput": "", "commitOid": repository.head}
        prefix = name.removeprefix("models/")
        if as_pull_request:
            repository.pull_requests.append(changed)
            number = len(repository.pull_requests)
            answer["pullRequestUrl"] = f"{self.served.url}/{prefix}/discussions/{number}"
        else:
            repository.files |= changed
        answer["commitUrl"] = f"{self.served.url}/{prefix}/commit/{repository.head}"
        return self._send(200, answer)

    def _about(self, name: str) -> None:
        if repository := self._repository(name):
            self._send(
                200,
                {
                    "id": name.partition("/")[2],
                    "sha": repository.head,
                    "siblings": [{"rfilename": path} for path in repository.files],
                    "private": repository.private,
                    "tags": [],
                    "downloads": 0,
                    "likes": 0,
                },
            )

    def _tree(self, name: str) -> None:
        if repository := self._repository(name):
            files = repository.files.items()
            self._send(
                200, [{"type": "file", "path": path, "size": len(data), "oid": blob(data)} for path, data in files]
            )

    def _file(self, name: str, path: str) -> None:
        repository = self._repository(name)
        if repository is None:
            return None
        commit = {"X-Repo-Commit": repository.head}
        if path not in repository.files:
            return self._send(404, {"error": "Entry not found"}, commit | {"X-Error-Code": "EntryNotFound"})
        data = repository.files[path]
        return self._send(200, data, commit | {"ETag": f'"{blob(data)}"'})

    def _send(
        self, status: int, content: Mapping[str, Any] | list[Any] | bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        told = {"X-Error-Code": ERROR_CODES[status]} if status in ERROR_CODES else {}
        told |= {"Content-Type": "application/octet-stream" if isinstance(content, bytes) else "application/json"}
        if isinstance(content, Mapping) and "error" in content:
            told["X-Error-Message"] = str(content["error"])
        self.send_response(status)
        for name, value in {**told, **(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
