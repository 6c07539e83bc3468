"""The warm executor: one long-lived process that answers a SuperNode's messages with the installed ClientApp.

It replaces ``flower-superexec`` and ``flwr-clientapp`` of a SuperNode that was started with ``--isolation process``.
Flower's own executor starts a new Python for each message and runs whatever code the bundle carries. This one imports
the ClientApp of its own image once, keeps the site's features in memory, refuses a bundle that carries code or belongs
to another app, and lets no exception's text out.

Uses of Flower's inside: RuntimeHttpClient, AcquireTask, and the helpers of ``flwr.supernode.runtime.run_clientapp``.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

import httpx
from flwr.app import Message
from flwr.clientapp import ClientApp
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.auth import load_superexec_auth_secret
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from ctfed.federation.flower import bell
from ctfed.federation.flower.bundle import FAB_ID, check_bundle
from ctfed.federation.flower.pace import Rest, quicken_object_pulls
from ctfed.federation.flower.records import public_reason, scrubbed_reply

log = logging.getLogger(__name__)

FIRST_REST, LONGEST_REST = 0.03, 1.0  # s between two looks for a task; the SuperNode is on the same machine
BELL_REST = 1.0  # s, in place of both, where the SuperNode rings a bell
_ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})


class WarmExecutor:
    """Takes tasks from one SuperNode and answers them one at a time."""

    def __init__(
        self,
        address: str,
        app: ClientApp,
        *,
        fab_id: str = FAB_ID,
        secret_file: Path | None = None,
        heard: threading.Event | None = None,
    ) -> None:
        """``address`` is the SuperNode's Runtime API (host:port, loopback); ``secret_file`` is shared with it.

        ``heard`` is set by others whenever a look for a task is worth while.
        """
        self._address = address
        self._app = app
        self._fab_id = fab_id
        interceptors: list[ProtobufClientInterceptor] = []
        if secret_file is not None:
            secret = load_superexec_auth_secret(secret_file=str(secret_file))
            interceptors.append(SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=_ACQUIRE))
        # Without Flower's endless retries: this loop looks again by itself, and can be stopped in between.
        self._client = self._connect(*interceptors, retry=False)
        self._stop = threading.Event()
        self._heard = heard or threading.Event()
        self._rest = Rest(BELL_REST if heard else FIRST_REST, LONGEST_REST, self._wait)

    def stop(self) -> None:
        """End ``run`` after the task at hand."""
        self._stop.set()
        self._heard.set()

    def _wait(self, seconds: float) -> None:
        self._heard.wait(seconds)
        self._heard.clear()  # before the next look, so that a ring during that look is not lost

    def run(self) -> None:
        """Answer tasks until ``stop``."""
        quicken_object_pulls()
        request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
        away = False
        while not self._stop.is_set():
            try:
                response = self._client.AcquireTask(request)
                if response.HasField("task") and response.token:
                    self._answer(response.token)
                    self._rest.restart()
                else:
                    self._rest.idle()
                away = False
            except (httpx.HTTPError, ObjectPullError) as error:
                # The SuperNode starts, went away or forgot the task. The server asks again, so nothing is lost.
                if not away:
                    log.warning(
                        "the SuperNode at %s is away or gave up a task (%s); looking again", self._address, error
                    )
                away = True
                self._rest.idle()
        self._client.close()

    def _answer(self, token: str) -> None:
        client = self._connect(RuntimeTokenHttpInterceptor(token))
        heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
        heartbeat.start()
        context, outcome, details = None, SubStatus.FAILED, "the task did not end"
        try:
            message, context, run, fab = pull_task_input(client)
            try:
                check_bundle(run.fab_id, fab.content, self._fab_id)
                reply: Message = self._app(message, context)
                outcome, details = SubStatus.COMPLETED, ""
            except Exception as error:  # the border of the site, as in the ClientApp's own mod
                log.exception("could not answer; the server is told %r only", public_reason(error))
                details = public_reason(error)
                reply = scrubbed_reply(error, message)
            push_message(client, reply, context)
        finally:
            push_task_output(client=client, context=context, sub_status=outcome, details=details)
            if heartbeat.is_running:
                heartbeat.stop()
            client.close()

    def _connect(self, *interceptors: ProtobufClientInterceptor, retry: bool = True) -> RuntimeHttpClient:
        return RuntimeHttpClient.from_server_address(
            server_address=self._address,
            insecure=True,  # loopback inside one container; the secret keeps other processes from taking tasks
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec"), *interceptors],
            retry_invoker=make_simple_http_retry_invoker() if retry else None,
        )


def main(arguments: list[str] | None = None) -> None:
    """Run the warm executor until SIGTERM."""
    parser = argparse.ArgumentParser(prog="ctfed-executor")
    parser.add_argument("--runtime-api-address", required=True)
    parser.add_argument("--fab-id", default=FAB_ID)
    parser.add_argument("--secret-file", type=Path)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line per look is no news

    from ctfed.federation.client_app import app
    from ctfed.node import register_queries

    register_queries()  # a second or two of imports, for which no round has to wait
    executor = WarmExecutor(
        options.runtime_api_address, app, fab_id=options.fab_id, secret_file=options.secret_file, heard=bell.heard()
    )
    signal.signal(signal.SIGTERM, lambda *_: executor.stop())
    log.info("ready for tasks of %s", options.fab_id)
    executor.run()


if __name__ == "__main__":
    main()
