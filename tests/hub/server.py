"""A small hub on this machine: the part of the hub's protocol that loading and publishing models needs.

Repositories are folders `<root>/<owner>/<name>`, each with one commit that moves when something is pushed. Every
request is written down, so that a test can tell what was downloaded and that nothing was asked for offline.
"""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse


class LoopbackHub:
    """Serves the repositories under `root` at `endpoint` until `close()`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def files(self, repository: str) -> dict[str, Path] | None:
        folder = self.root / repository
        if not folder.is_dir():
            return None
        return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}

    def commit(self, repository: str) -> str:
        digest = hashlib.sha1()
        for name, path in self.files(repository).items():
            digest.update(f"{name} {_etag(path)}\n".encode())
        return digest.hexdigest()

    def downloaded(self, repository: str) -> set[str]:
        """The files of a repository that were fetched."""
        start = f"/{repository}/resolve/"
        paths = [
            path[len(start) :].split("/", 1)[1]
            for kind, path in self.requests
            if kind == "GET" and path.startswith(start)
        ]
        return set(paths)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._get()

    def do_GET(self):
        self._get()

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path = unquote(urlparse(self.path).path)
        self.hub.requests.append(("POST", path))
        parts = path.strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            repository = f"{asked['organization'] or 'me'}/{asked['name']}"
            (self.hub.root / repository).mkdir(parents=True, exist_ok=True)
            return self._json({"url": f"{self.hub.endpoint}/{repository}", "name": repository, "id": repository})
        if parts == ["api", "validate-yaml"]:
            return self._json({"warnings": [], "errors": []})
        repository, verb = "/".join(parts[2:4]), parts[4]
        if self.hub.files(repository) is None:
            return self._fail(404, "RepoNotFound")
        if verb == "preupload":
            asked = json.loads(body)["files"]
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for f in asked]
            return self._json({"files": files})
        if verb == "commit":
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    target = self.hub.root / repository / entry["value"]["path"]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(base64.b64decode(entry["value"]["content"]))
            commit = self.hub.commit(repository)
            url = f"{self.hub.endpoint}/{repository}/commit/{commit}"
            return self._json({"commitUrl": url, "commitOid": commit, "pullRequestUrl": None})
        return self._fail(404, "")

    def _get(self):
        path = unquote(urlparse(self.path).path)
        self.hub.requests.append((self.command, path))
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            return self._api(parts[1:])
        repository, verb, name = "/".join(parts[:2]), parts[2] if len(parts) > 2 else "", "/".join(parts[4:])
        files = self.hub.files(repository)
        if files is None:
            return self._fail(404, "RepoNotFound")
        if verb != "resolve":
            return self._fail(404, "")
        if name not in files:
            return self._fail(404, "EntryNotFound", {"X-Repo-Commit": self.hub.commit(repository)})
        headers = {"X-Repo-Commit": self.hub.commit(repository), "ETag": f'"{_etag(files[name])}"'}
        return self._send(200, files[name].read_bytes(), {**headers, "Content-Type": "application/octet-stream"})

    def _api(self, parts):
        if parts[0] == "whoami-v2":
            return self._json({"name": "me", "orgs": []})
        repository = "/".join(parts[1:3])
        files = self.hub.files(repository)
        if files is None:
            return self._fail(404, "RepoNotFound")
        commit = self.hub.commit(repository)
        verb = parts[3] if len(parts) > 3 else "revision"
        if verb == "revision":
            siblings = [{"rfilename": name} for name in files]
            return self._json({"id": repository, "sha": commit, "siblings": siblings, "private": False, "tags": []})
        if verb == "tree":
            inside = "/".join(parts[5:])
            start = f"{inside}/" if inside else ""
            return self._json(
                [
                    {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)[:40]}
                    for name, path in files.items()
                    if name.startswith(start)
                ]
            )
        return self._fail(404, "EntryNotFound")

    def _json(self, value):
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _fail(self, status, code, headers=None):
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _send(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
