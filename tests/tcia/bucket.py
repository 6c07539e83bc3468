"""A public S3 bucket on loopback, as far as s5cmd asks one: list by prefix, get an object."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Bucket:
    """Objects by 'bucket/key'; ``served`` counts how often each was fetched."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = dict(objects)
        self.served: dict[str, int] = {}
        self.broken: dict[str, bytes] = {}  # what is sent in place of an object, as a faulty line would

    def listing(self, bucket: str, prefix: str) -> str:
        """The XML of ListObjectsV2."""
        entries = [
            f"<Contents><Key>{escape(name)}</Key><Size>{len(content)}</Size>"
            f"<ETag>&quot;{hashlib.md5(content).hexdigest()}&quot;</ETag>"
            "<LastModified>2024-01-01T00:00:00.000Z</LastModified><StorageClass>STANDARD</StorageClass></Contents>"
            for path, content in sorted(self.objects.items())
            for own, name in [path.split("/", 1)]
            if own == bucket and name.startswith(prefix)
        ]
        return (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(entries)}</KeyCount>"
            f"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{''.join(entries)}</ListBucketResult>"
        )


@contextmanager
def serving(bucket: Bucket) -> Iterator[str]:
    """The endpoint's URL while the bucket is served."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self, body: bool) -> None:
            parts = urlsplit(self.path)
            path, query = unquote(parts.path).strip("/"), parse_qs(parts.query)
            headers = {}
            if "/" not in path:
                content = bucket.listing(path, query.get("prefix", [""])[0]).encode()
                code, headers["Content-Type"] = 200, "application/xml"
            elif path in bucket.objects:
                content, code = bucket.objects[path], 200
                headers["ETag"] = f'"{hashlib.md5(content).hexdigest()}"'
                if body:
                    bucket.served[path] = bucket.served.get(path, 0) + 1
                    content = bucket.broken.get(path, content)
                if "Range" in self.headers:
                    first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
                    whole = len(content)
                    content = content[int(first) : int(last) + 1 if last else None]
                    code = 206
                    headers["Content-Range"] = f"bytes {first}-{int(first) + len(content) - 1}/{whole}"
            else:
                content, code = b"<Error><Code>NoSuchKey</Code></Error>", 404
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def do_GET(self) -> None:
            self._answer(True)

        def do_HEAD(self) -> None:
            self._answer(False)

        def log_message(self, *arguments: object) -> None:
            """No lines on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
