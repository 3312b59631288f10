"""A hub of models in this process, over HTTP on this machine: what huggingface_hub's client asks, of repositories kept
in memory. Large files travel by Git LFS with its basic transfer, as that client does where the server offers nothing
else; a request to write needs the token."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_test"
LARGE = (".safetensors", ".onnx", ".pt2")
"""The ends of the names of files that go by LFS."""

Tree = dict[str, bytes]


@dataclass
class Repository:
    """Commits by their name, each with its files, and branches."""

    commits: dict[str, Tree] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, tree: Tree, message: str = "") -> str:
        name = hashlib.sha1(f"{len(self.commits)} {branch}".encode()).hexdigest()
        self.commits[name], self.branches[branch] = tree, name
        self.messages.append(message)
        return name

    def tree(self, revision: str) -> Tree | None:
        return self.commits.get(self.branches.get(revision, revision))

    @property
    def newest(self) -> Tree:
        return self.commits[self.branches["main"]]


@dataclass
class Hub:
    """The server's repositories, its LFS objects, and the requests that came: "GET /path"."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    """What it says of the sizes of files, in place of the truth."""

    def fetched(self) -> set[str]:
        """The names of files whose content was asked for."""
        found = (re.fullmatch(r"GET /[^/]+/[^/]+/resolve/[^/]+/(.+)", each) for each in self.requests)
        return {match[1] for match in found if match}

    def add(self, name: str, tree: Tree) -> Repository:
        repository = self.repositories[name] = Repository()
        repository.commit("main", dict(tree))
        return repository


class Refused(Exception):
    """An answer that is an error: its status and the code by which the client knows it."""


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        try:
            for method, pattern, handle in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method:
                    if self.command in ("POST", "PUT") and not re.search("validate|/lfs/|paths-info", path):
                        self.check_token()
                    handle(self, *match.groups())
                    return
            raise Refused(404, "")
        except Refused as refusal:
            status, code = refusal.args
            self.send(b"{}", status, {"X-Error-Code": code, "X-Error-Message": f"refused: {code or path}"})

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def check_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "")

    def send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_json(self, document: Any) -> None:
        self.send(json.dumps(document).encode(), headers={"Content-Type": "application/json"})

    def repository(self, name: str) -> Repository:
        if name not in self.hub.repositories:
            raise Refused(404, "RepoNotFound")
        return self.hub.repositories[name]

    def tree(self, name: str, revision: str) -> tuple[str, Tree]:
        repository = self.repository(name)
        tree = repository.tree(revision)
        if tree is None:
            raise Refused(404, "RevisionNotFound")
        return repository.branches.get(revision, revision), tree

    def info(self, name: str, revision: str) -> None:
        commit, tree = self.tree(name, revision)
        self.send_json({"id": name, "sha": commit, "siblings": [{"rfilename": each} for each in tree]})

    def paths_info(self, name: str, revision: str) -> None:
        self.listing(name, revision, set(parse_qs(self.body.decode())["paths"]))

    def listing(self, name: str, revision: str, paths: set[str] | None = None) -> None:
        _, tree = self.tree(name, revision)
        tree = {path: content for path, content in tree.items() if paths is None or path in paths}
        entries = []
        for path, content in tree.items():
            size = self.hub.sizes.get(path, len(content))
            entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": blob_id(content)}
            if path.endswith(LARGE):
                entry["lfs"] = {"oid": digest(content), "size": size, "pointerSize": 130}
            entries.append(entry)
        self.send_json(entries)

    def content(self, name: str, revision: str, path: str) -> None:
        commit, tree = self.tree(name, revision)
        if path not in tree:
            raise Refused(404, "EntryNotFound")
        found = digest(tree[path]) if path.endswith(LARGE) else blob_id(tree[path])
        self.send(tree[path], headers={"ETag": f'"{found}"', "X-Repo-Commit": commit})

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            self.send(json.dumps({"url": f"{self.hub.url}/{name}"}).encode(), 409)
            return
        self.hub.repositories[name] = repository = Repository(
            private=asked.get("visibility") == "private" or bool(asked.get("private"))
        )
        repository.commit("main", {".gitattributes": b""})
        self.send_json({"url": f"{self.hub.url}/{name}"})

    def branch(self, name: str, branch: str) -> None:
        repository = self.repository(name)
        if branch in repository.branches:
            raise Refused(409, "")
        repository.branches[branch] = repository.branches["main"]
        self.send_json({})

    def preupload(self, name: str, revision: str) -> None:
        _, tree = self.tree(name, revision)
        modes = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": blob_id(tree[each["path"]]) if each["path"] in tree else None,
            }
            for each in json.loads(self.body)["files"]
        ]
        self.send_json({"files": modes})

    def batch(self, _: str) -> None:
        asked = json.loads(self.body)["objects"]
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}}}
            for each in asked
            if each["oid"] not in self.hub.objects
        ]
        self.send_json({"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        if digest(self.body) != oid:
            raise Refused(400, "")
        self.hub.objects[oid] = self.body
        self.send_json({})

    def commit(self, name: str, revision: str) -> None:
        _, tree = self.tree(name, revision)
        tree, message = dict(tree), ""
        for each in map(json.loads, self.body.splitlines()):
            value = each["value"]
            match each["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    tree[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    tree[value["path"]] = self.hub.objects[value["oid"]]
                case "deletedFile":
                    del tree[value["path"]]
        commit = self.repository(name).commit(revision, tree, message)
        self.send_json({"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit})

    def validate(self) -> None:
        self.send_json({"errors": [], "warnings": []})


NAME = "([^/]+/[^/]+)"
ROUTES = [
    ("GET", rf"/api/models/{NAME}/revision/(.+)", Handler.info),
    ("GET", rf"/api/models/{NAME}/tree/(.+)", Handler.listing),
    ("POST", rf"/api/models/{NAME}/paths-info/(.+)", Handler.paths_info),
    ("GET HEAD", rf"/{NAME}/resolve/([^/]+)/(.+)", Handler.content),
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", r"/api/validate-yaml", Handler.validate),
    ("POST", rf"/api/models/{NAME}/branch/(.+)", Handler.branch),
    ("POST", rf"/api/models/{NAME}/preupload/(.+)", Handler.preupload),
    ("POST", rf"/api/models/{NAME}/commit/(.+)", Handler.commit),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", Handler.store),
]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_id(content: bytes) -> str:
    """The name that git gives to a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on a free port of this machine, until the end of the context."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
