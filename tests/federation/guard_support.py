"""What the tests of the guard ask of a site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from masked_support import (
    Federation,
)

from ctfed.federation import Cohort, Query, Refusal
from ctfed.federation.arrays import IntArray
from ctfed.federation.ledger import (
    FILE,
    read_ledger,
)
from ctfed.federation.responder import Responder
from ctfed.federation.session import Assembly
from ctfed.federation.wire import encode_question

SITE = "site-00"


def rule_of(call: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as refused:
        call()
    return refused.value.rule


def facts_of(federation: Federation, site: str, kind: str) -> list[dict[str, Any]]:
    path = federation.ledger_folder(site) / FILE
    return [dict(entry.facts) for entry in read_ledger(path) if entry.kind == kind]


def ask_one(federation: Federation, number: int, query: Query, assembly: Assembly, site: str = SITE) -> IntArray:
    return federation.responders[site].answer(federation.question(number, [query], assembly)).limbs


def clear_limbs(cohort: Cohort, *queries: Query) -> IntArray:
    """What a site would send without a guard."""
    return Responder(cohort).answer(encode_question("clear", 0, queries, frozenset())).limbs
