"""A Hugging Face Hub of one model, as far as downloading a model asks it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from engine import http_server

REVISION = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def fake_hub(name: str, model: Path, address: str) -> Iterator[str]:
    """Serves the files of a model's folder under that name. Yields the URL for HF_ENDPOINT."""
    files = {str(path.relative_to(model)): path.read_bytes() for path in model.rglob("*") if path.is_file()}

    def etag(file: str) -> str:
        return hashlib.sha1(files[file]).hexdigest()

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self, body: bool = True) -> None:
            path = self.path.partition("?")[0].strip("/")
            file = path.removeprefix(f"{name}/resolve/{REVISION}/")
            if path == f"api/models/{name}/tree/{REVISION}":
                tree = [{"type": "file", "path": file, "size": len(files[file]), "oid": etag(file)} for file in files]
                content = json.dumps(tree).encode()
            elif path.startswith(f"api/models/{name}"):
                siblings = [{"rfilename": file} for file in files]
                content = json.dumps({"id": name, "sha": REVISION, "siblings": siblings}).encode()
            elif file != path and file in files:
                content = files[file]
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            if file in files:
                self.send_header("ETag", f'"{etag(file)}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.do_GET(body=False)

        def log_message(self, *_):
            pass

    with http_server(Hub, address) as url:
        yield url
