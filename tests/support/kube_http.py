"""Plain requests to a test's API server, one connection, no client library: what a test says is what is sent."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from apiserver import ApiServer


class KubeHttp:
    def __init__(self, server: ApiServer) -> None:
        context = ssl.create_default_context(cafile=str(server.ca))
        context.load_cert_chain(server.certificate, server.key)
        address = urlsplit(server.url)
        assert address.hostname is not None
        self._connection = http.client.HTTPSConnection(address.hostname, address.port, context=context, timeout=20)
        self.warnings: list[str] = []
        """Of the last answer."""

    def __enter__(self) -> KubeHttp:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> tuple[int, Any]:
        """Status and document; of a path that the server does not know the text that it answers with."""
        text = None if body is None else json.dumps(body)
        self._connection.request(method, path, text, {"Content-Type": content_type, "Accept": "application/json"})
        response = self._connection.getresponse()
        answer = response.read()
        kind = response.headers.get_content_type()
        document = json.loads(answer) if kind == "application/json" else answer.decode()
        self.warnings = response.headers.get_all("Warning") or []
        return response.status, document

    def create(self, path: str, body: Any) -> Any:
        status, document = self.request("POST", path, body)
        assert status == 201, document
        return document

    def delete(self, path: str) -> Any:
        status, document = self.request("DELETE", path)
        assert status in (200, 202), document
        return document
