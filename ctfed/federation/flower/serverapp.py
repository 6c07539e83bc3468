"""``python -m ctfed.federation.flower.serverapp``: the one ServerApp of `ctfed serve`, in a process that starts early.

It replaces ``flower-superexec`` and ``flwr-serverapp`` of a SuperLink that was started with ``--isolation process``.
Flower's own SuperExec looks for tasks as long as the SuperLink runs, and starts a new Python for the task. This process
imports the server's code while the SuperLink still starts, takes one task when its bell rings (the run has been
submitted then, and what a killed server left has been ended), and ends with it. It runs ctfed's own bundle only, and
what it prints is its output: nothing is sent through the SuperLink to be read back.

Uses of Flower's inside: RuntimeHttpClient, AcquireTask, ``flwr.superlink.runtime.run_serverapp`` and the name
``flush_logs`` inside it, checked.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path
from queue import Queue

from ctfed.federation.flower import bell
from ctfed.federation.flower.bundle import build_bundle

LOOK = 0.1  # s between two looks for the task


def acquire(address: str, ca: bytes, secret: bytes | None, bundle: bytes) -> str:
    """Take the ServerApp task of a bundle from the SuperLink at host:port, as soon as it has one; the task's token."""
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.constant import TaskType
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
    from flwr.supercore.retry import make_simple_http_retry_invoker
    from flwr.supercore.runtime import RuntimeHttpClient

    protected = frozenset({"/flwr.proto.Runtime/AcquireTask"})
    with RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=False,
        root_certificates=ca,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperExec"),
            SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=protected),
        ],
        retry_invoker=make_simple_http_retry_invoker(),
    ) as client:
        request = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
        while True:
            response = client.AcquireTask(request)
            if response.token and response.task.fab_hash == hashlib.sha256(bundle).hexdigest():
                return str(response.token)
            time.sleep(LOOK)  # another's task is left to be timed out


def do_not_wait_for_logs() -> None:
    """Leave out the second that Flower waits for its upload of logs, which has nothing to upload here.

    Raises:
        RuntimeError: when this flwr does not end a ServerApp as 1.41.0 does.
    """
    from flwr.superlink.runtime import run_serverapp

    module = sys.modules[run_serverapp.__module__]
    if not hasattr(module, "flush_logs"):
        raise RuntimeError("flwr ends a ServerApp in another way; ctfed is made for flwr 1.41.0")
    module.flush_logs = lambda queue, timeout=0.0: True  # type: ignore[attr-defined]


def main(arguments: list[str] | None = None) -> None:
    """Run one ServerApp task and end."""
    parser = argparse.ArgumentParser(prog="ctfed-serverapp")
    parser.add_argument("--runtime-api-address", required=True)
    parser.add_argument("--root-certificates", type=Path, required=True)
    parser.add_argument("--secret-file", type=Path, required=True)
    options = parser.parse_args(arguments)

    from flwr.supercore.auth import load_superexec_auth_secret
    from flwr.superlink.runtime import run_serverapp

    import server.app
    import server.study_run  # noqa: F401  # what the ServerApp will need

    do_not_wait_for_logs()
    bundle, ca = build_bundle(), options.root_certificates.read_bytes()
    secret = load_superexec_auth_secret(secret_file=str(options.secret_file))
    heard = bell.heard()
    if heard is not None:
        heard.wait()
    token = acquire(options.runtime_api_address, ca, secret, bundle)
    logs: Queue[str | None] = Queue()
    run_serverapp(options.runtime_api_address, logs, token, insecure=False, certificates=ca)


if __name__ == "__main__":
    main()
