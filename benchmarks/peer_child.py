"""One federated peer on one data set; started by peers.py in the peers' own environment, prints one JSON object.

    python peer_child.py {webdisco,tno} DATA.npz [BINS]

DATA.npz holds x (n, p), time, event and site (n,). The peer fits once with all patients at one site and once with
the sites of the file; the second fit is timed. Nothing of ctfed is imported here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Part(NamedTuple):
    """The patients of one site."""

    x: np.ndarray
    time: np.ndarray
    event: np.ndarray


def webdisco(parts: Sequence[Part], bins: int) -> dict[str, Any]:
    """federated-survival's WebDISCO protocol on double-precision arrays, to a step of 1e-10.

    It simulates the sites in one process and sends no message; bytes follow the arrays of its own payload estimate.
    """
    from federated_survival import FSAConfig, get_federated_protocol

    protocol = get_federated_protocol("webdisco")
    objective, payloads = protocol.distributed_objective, []

    def counted(*arguments: Any) -> Any:
        result = objective(*arguments)
        payloads.append(result[3])
        return result

    protocol.distributed_objective = counted
    clients = {f"site{k}": (part.x, np.column_stack([part.time, part.event])) for k, part in enumerate(parts)}
    config = FSAConfig(
        model_type="CoxPH",
        num_nodes=(),
        federated_protocol="WebDISCO-style",
        num_clients=len(parts),
        webdisco_tolerance=1e-10,
    )
    started = time.perf_counter()
    protocol.begin_run(config, {})
    result = protocol.fit_coefficients(clients)
    seconds = time.perf_counter() - started
    times, width = protocol.event_times(clients).size, result.coefficients.size
    sums = times * (2 + 2 * width + width**2)
    if set(payloads) != {8 * len(parts) * (2 * times + sums + width)}:
        raise AssertionError("its payload estimate no longer has the layout that bytes are computed from here")
    own_times = max(np.unique(part.time[part.event]).size for part in parts)
    return {
        "peer": f"federated-survival {version('federated-survival')}",
        "coefficients": result.coefficients.tolist(),
        "seconds": seconds,
        "rounds": 1 + 2 * len(payloads),
        "bytes_up": 8 * (own_times + len(payloads) * (times + sums)),
        "bytes": "by its layout",
    }


async def _tno(parts: Sequence[Part], bins: int) -> dict[str, Any]:
    from tno.fl.protocols.cox_regression.client import Client
    from tno.fl.protocols.cox_regression.server import Server
    from tno.mpc.communication import Pool

    names = ["server"] + [f"site{k}" for k in range(len(parts))]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    pools = {}
    for name in names:
        pools[name] = Pool()
        pools[name].add_http_server(addr="127.0.0.1", port=ports[name])
        for other in names[1:] if name == "server" else names[:1]:
            pools[name].add_http_client(other, "127.0.0.1", port=ports[other])
    server = Server(pools["server"], n_time_bins=bins)
    clients = [Client(pools[name]) for name in names[1:]]
    # Its stacking sorts the arrays that it is given in place.
    own = [Part(*(array.copy() for array in part)) for part in parts]
    started = time.perf_counter()
    models = await asyncio.gather(server.run(), *[client.run(*part) for client, part in zip(clients, own, strict=True)])
    seconds = time.perf_counter() - started
    up = [pools[name].pool_handlers["server"].total_bytes_sent for name in names[1:]]
    rounds = pools["server"].pool_handlers["site0"].msg_send_counter
    for pool in pools.values():
        await pool.shutdown()
    return {
        "peer": f"tno cox_regression {version('tno.fl.protocols.cox_regression')}",
        "coefficients": models[1][: parts[0].x.shape[1]].tolist(),
        "seconds": seconds,
        "rounds": rounds,
        "bytes_up": max(up),
        "bytes": "measured",
    }


def tno(parts: Sequence[Part], bins: int) -> dict[str, Any]:
    """TNO's survival stacking with federated logistic regression, over HTTP on the loopback interface.

    Its 25 iterations are its default; bytes are those its HTTP clients count, without HTTP's own headers.
    """
    logging.disable(logging.CRITICAL)
    latest = max(part.time.max() for part in parts)
    edge = np.linspace(0, latest + 1, bins)[-2]  # as its server cuts the time axis
    try:
        return asyncio.run(_tno(parts, bins))
    except np.linalg.LinAlgError as error:
        empty = f"nobody is at risk in its last bin, from {edge:.2f} (latest time {latest:g})"
        raise ValueError(f"{error}: {empty if edge > latest else 'in its Newton step'}") from error


def _free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def main(peer: str, file: Path, bins: int) -> None:
    """Run one peer and print its figures, or the reason why it has none."""
    data = np.load(file)
    whole = Part(data["x"], data["time"], data["event"])
    parts = [Part(*(array[data["site"] == k] for array in whole)) for k in range(int(data["site"].max()) + 1)]
    run = {"webdisco": webdisco, "tno": tno}[peer]
    try:
        alone = run([whole], bins)["coefficients"]
        found = {**run(parts, bins), "alone": alone}
    except Exception as error:  # whatever stops a peer is what the table has to say
        found = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
