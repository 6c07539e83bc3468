"""Two ears on a site's line: one hears the packets on the cable, the other, between two TLS connections, all else."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h11
import numpy as np
from flwr.app import ConfigRecord
from flwr.proto.message_pb2 import PullObjectResponse, PushObjectRequest

from ctfed.federation.wire import Answer, Question

ALL_PROTOCOLS = 3  # ETH_P_ALL
LONGEST_FRAME = 2**18  # bytes; the cable hands over segments that are not yet cut into packets


def why_no_packets() -> str:
    """Why packets cannot be captured here; '' when they can."""
    try:
        with PacketCapture("lo"):
            return ""
    except (OSError, AttributeError) as error:
        return f"packets cannot be captured here ({error})"


class PacketCapture:
    """Every frame on one network interface, both ways, until it is closed."""

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**25)
        self._socket.bind((interface, 0))
        self._socket.settimeout(0.2)
        self._frames: list[bytes] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> PacketCapture:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(5)
        self._socket.close()

    @property
    def content(self) -> bytes:
        """All frames, one after the other."""
        return b"".join(self._frames)

    @property
    def peers(self) -> set[str]:
        """The IPv4 addresses in the frames; the form of an Ethernet frame is taken for granted."""
        packets = [frame[14:34] for frame in self._frames if frame[12:14] == b"\x08\x00"]
        return {socket.inet_ntoa(packet[place : place + 4]) for packet in packets for place in (12, 16)}

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                self._frames.append(self._socket.recv(LONGEST_FRAME))
            except TimeoutError:
                continue


@dataclass
class Line:
    """One connection through the recorder: what the site sent and what it was sent, in the clear."""

    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)


class Recorder:
    """Ends the site's TLS with the hub's own certificate, keeps what comes, and takes it on to the hub over TLS."""

    def __init__(self, listen: tuple[str, int], hub: tuple[str, int], server: Path) -> None:
        """``server`` is the hub's folder, with ca.crt, server.crt and server.key."""
        self.lines: list[Line] = []
        self._hub = hub
        self._inward = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._inward.load_cert_chain(server / "server.crt", server / "server.key")
        self._onward = ssl.create_default_context(cafile=str(server / "ca.crt"))
        self._listener = socket.create_server(listen)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._listener.close()
        self._thread.join(5)

    def captures(self) -> dict[str, bytes]:
        """What the site sent: each connection's bytes, and the bodies in them, whose pieces are put together."""
        found = {f"connection {number}": bytes(line.sent) for number, line in enumerate(self.lines)}
        for number, line in enumerate(self.lines):
            found |= {f"connection {number}, body {k}": body for k, (_, body) in enumerate(requests(bytes(line.sent)))}
        return found

    def bodies(self) -> list[tuple[str, bytes]]:
        """(path, body) of every request of the site."""
        return [request for line in self.lines for request in requests(bytes(line.sent))]

    def _accept(self) -> None:
        self._listener.settimeout(0.2)
        while not self._stop.is_set():
            try:
                plain, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        """One connection. It ends as soon as one side ends; the site then connects again."""
        try:
            with self._inward.wrap_socket(plain, server_side=True) as site, self._connect() as hub:
                line = Line()
                self.lines.append(line)
                back = threading.Thread(target=_pump, args=(hub, site, line.received), daemon=True)
                back.start()
                _pump(site, hub, line.sent)
                back.join(60)
        except OSError:  # the hub does not listen yet, or one of them went away: as with any proxy
            plain.close()

    def _connect(self) -> ssl.SSLSocket:
        return self._onward.wrap_socket(socket.create_connection(self._hub), server_hostname=self._hub[0])


def _pump(source: ssl.SSLSocket, target: ssl.SSLSocket, kept: bytearray) -> None:
    try:
        while piece := source.recv(65536):
            kept += piece
            target.sendall(piece)
    except OSError:  # the other direction has ended
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:  # closed already
            continue


def requests(sent: bytes) -> list[tuple[str, bytes]]:
    """(path, body) of every HTTP/1.1 request in what a client has sent; a last one that is cut short is left out."""
    connection = h11.Connection(our_role=h11.SERVER)
    connection.receive_data(sent)
    found: list[tuple[str, bytes]] = []
    path, body = "", b""
    for event in _events(connection):
        if isinstance(event, h11.Request):
            path, body = event.target.decode(), b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            found.append((path, body))
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
    return found


def responses(line: Line) -> list[tuple[str, bytes]]:
    """(path, body) of every response on a connection; a last one that is cut short is left out."""
    connection = h11.Connection(our_role=h11.CLIENT)
    connection.receive_data(bytes(line.received))
    found: list[tuple[str, bytes]] = []
    for path, _ in requests(bytes(line.sent)):
        connection.send(h11.Request(method="POST", target=path, headers=[("host", "hub"), ("content-length", "0")]))
        connection.send(h11.EndOfMessage())
        body = b""
        for event in _events(connection):
            if isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append((path, body))
                break
        else:
            return found
        connection.start_next_cycle()
    return found


def _events(connection: h11.Connection) -> Iterator[object]:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            return
        yield event


def answers(recorder: Recorder) -> list[Answer]:
    """The answers that the site has given, as the hub reads them."""
    bodies = [body for line in recorder.lines for path, body in requests(bytes(line.sent)) if _OBJECT in path]
    records = _records(PushObjectRequest.FromString(body).object_content for body in bodies)
    return [Answer(text, np.frombuffer(flat, dtype="<i8").astype(np.int64)) for text, flat in records]


def questions(recorder: Recorder) -> list[Question]:
    """The questions that the site was asked, in their order, each once."""
    bodies = [body for line in recorder.lines for path, body in responses(line) if _OBJECT in path]
    records = _records(PullObjectResponse.FromString(body).object_content for body in bodies)
    return [Question(text, np.frombuffer(flat, dtype="<f8")) for text, flat in dict.fromkeys(records)]


_OBJECT = "object"  # in the paths by which Flower takes and gives the parts of messages
_CONFIG = b"ConfigRecord "


def _records(objects: Iterable[bytes]) -> list[tuple[str, bytes]]:
    """Text and numbers of every message among the parts; those that are larger than the tests' are not looked for."""
    read = [ConfigRecord.inflate(content) for content in objects if content.startswith(_CONFIG)]
    return [(str(record["json"]), bytes(record["flat"])) for record in read if {"json", "flat"} <= set(record)]
