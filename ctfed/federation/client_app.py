"""The Flower ClientApp of a site: receives a question, hands it to the site's Responder, returns its answer.

Both SuperNode executors (ctfed's warm one and Flower's own), the in-process grid and Flower's simulation call this
same object. Nothing here decides anything: what may be answered is the Responder's business.
"""

from __future__ import annotations

import logging

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from ctfed import __version__, node
from ctfed.federation.errors import Refusal
from ctfed.federation.flower.records import pack_answer, pack_hello, public_reason, scrubbed_reply, unpack_question

log = logging.getLogger(__name__)


def scrub(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Flower mod: no exception's text leaves the site; the server learns a rule's or a class's name.

    Flower sends ``str(exception)`` to the server, and that text may hold a file name or a patient's identifier. The
    whole error goes to the site's own log.
    """
    try:
        return call_next(message, context)
    except Refusal as refusal:
        # What is printed of a log is its first line (ctfed.federation.flower.processes); the rest stays at the site.
        log.warning("declined to answer; the server is told %r only", public_reason(refusal), exc_info=True)
        return scrubbed_reply(refusal, message)
    except Exception as error:  # the border of the site: every error, known or not, is reduced to its name
        log.exception("could not answer; the server is told %r only", public_reason(error))
        return scrubbed_reply(error, message)


app = ClientApp(mods=[scrub])


@app.query("hello")  # type: ignore[untyped-decorator]
def hello(message: Message, context: Context) -> Message:
    """Tell the server which site this node is and which ctfed it runs."""
    return Message(pack_hello(node.site_name(context.node_config), __version__), reply_to=message)


@app.query("ask")  # type: ignore[untyped-decorator]
def ask(message: Message, context: Context) -> Message:
    """Answer one round's question with this site's sums."""
    question = unpack_question(message.content)
    answer = node.responder_for(context).answer(question)
    return Message(pack_answer(answer), reply_to=message)
