"""Flower's Control API as the server's operator needs it: register sites, start a run, follow it.

The ``flwr`` command does the same in one new process (2 s of imports) per call and knows no exit code of a run.

Uses of Flower's inside: ``flwr.supercore.control.ControlHttpClient`` and the control protobufs of 1.41.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    StreamLogsRequest,
)
from flwr.proto.federation_config_pb2 import SimulationConfig
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from ctfed.federation.errors import CtfedError

FINISHED = "finished"
COMPLETED = "finished:completed"


class ControlClient:
    """The Control API of one SuperLink. A context manager; every method raises CtfedError in words."""

    def __init__(self, address: str, ca: Path | None) -> None:
        """Connect to host:port, trusting the CA certificate in the file ``ca``; None is plain HTTP, on loopback."""
        self._client = ControlHttpClient.from_server_address(
            server_address=address,
            insecure=ca is None,
            root_certificates=ca.read_bytes() if ca else None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def register(self, keys: Mapping[str, str]) -> list[str]:
        """Register the SuperNodes' public keys (OpenSSH form) that the SuperLink does not know; returns their sites."""
        try:
            known = {bytes(info.public_key) for info in self._client.ListNodes(ListNodesRequest()).nodes_info}
            new = {site: _key_bytes(text) for site, text in keys.items() if _key_bytes(text) not in known}
            for site, key in new.items():
                self._client.RegisterNode(RegisterNodeRequest(public_key=key, name=site))
        except httpx.HTTPError as error:
            raise CtfedError(f"the SuperLink did not register the sites: {error}") from error
        return list(new)

    def start(self, bundle: bytes, run_config: Mapping[str, str | float], simulated: int | None = None) -> int:
        """Start a run of a bundle and return its id; ``simulated`` is the number of nodes of a Ray simulation."""
        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        request = StartRunRequest(fab=fab_to_proto(fab), override_config=user_config_to_proto(dict(run_config)))
        if simulated is not None:
            request.override_federation_config.CopyFrom(
                SimulationConfig(num_supernodes=simulated, client_resources_num_cpus=1, client_resources_num_gpus=0.0)
            )
        try:
            response = self._client.StartRun(request)
        except httpx.HTTPError as error:
            raise CtfedError(f"the SuperLink did not start the run: {error}") from error
        if not response.HasField("run_id"):
            raise CtfedError(f"the SuperLink did not start the run: {response.note or 'it gave no reason'}")
        return int(response.run_id)

    def logs(self, run_id: int) -> Iterator[str]:
        """What the ServerApp prints, as it comes, until the run ends."""
        try:
            for response in self._client.StreamLogs(StreamLogsRequest(run_id=run_id, after_timestamp=0.0)):
                yield response.log_output
        except httpx.HTTPError as error:
            raise CtfedError(f"the SuperLink stopped sending the run's output: {error}") from error

    def status(self, run_id: int) -> tuple[str, str]:
        """'<status>:<sub-status>' of a run ('finished:completed' when all is well) and Flower's details."""
        try:
            run = self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id]
        except httpx.HTTPError as error:
            raise CtfedError(f"the SuperLink did not tell how the run is: {error}") from error
        return ":".join(part for part in (run.status.status, run.status.sub_status) if part), str(run.status.details)

    def unfinished(self) -> list[int]:
        """The runs that have not ended."""
        try:
            runs = self._client.ListRuns(ListRunsRequest()).run_dict
        except httpx.HTTPError as error:
            raise CtfedError(f"the SuperLink did not tell which runs it has: {error}") from error
        return [int(run_id) for run_id, run in runs.items() if run.status.status != FINISHED]

    def stop(self, run_id: int) -> None:
        """Stop a run."""
        try:
            self._client.StopRun(StopRunRequest(run_id=run_id))
        except httpx.HTTPError as error:
            raise CtfedError(f"the SuperLink did not stop the run: {error}") from error


def _key_bytes(text: str) -> bytes:
    key = load_ssh_public_key(text.encode())
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CtfedError("a SuperNode's public key must be an elliptic-curve key")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
