"""The site's side of rounds as files: read a question's package, answer it as over a network, write the answer's.

The same responder, guard, gate, masks and ledger answer here as in `ctfed join`. Whatever may be read outside (what is
printed, and the folder of answers) holds no path, no identifier and no number of this site; what goes wrong is told
there by the name of its rule, and in full in ``round.log`` beside the ledger.
"""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ctfed.federation.disk import make_private, private
from ctfed.federation.errors import CtfedError, Refusal
from ctfed.federation.ledger import ANSWERED, FILE, JOINED, OPENED, Entry, read_ledger
from ctfed.federation.ledger_account import BUDGETS, account_of
from ctfed.federation.wire import Answer, Invitation, Question, decode_question
from ctfed.rounds.egress import Facts, beside
from ctfed.rounds.package import (
    FIRST_ROUND,
    Label,
    Package,
    PackageError,
    content_of,
    find_packages,
    write_package,
)
from ctfed.site import Site, Trust, load_site
from ctfed.study import Study, load_study
from ctfed.trust import guard_of, policy_of, trust_of

Tell = Callable[[str], None]
LOG = "round.log"


class NotAnswered(CtfedError):
    """A question that was not answered. Its sentence names the rule and nothing of the site."""


@dataclass(frozen=True)
class _Seat:
    """Who answers, what it has approved, and where its own files are."""

    site: Site
    study: Study
    trust: Trust

    @property
    def name(self) -> str:
        return str(self.site.site)

    @property
    def log(self) -> Path:
        return self.trust.ledger / LOG


def answer_packages(
    site_file: Path, study_file: Path, folder: Path, egress: Path, exchange: int | None = None, tell: Tell = print
) -> list[Path]:
    """Answer this site's newest question of every run in ``folder``, or that of one exchange.

    Args:
        site_file, study_file: the site's file, and the study that it has approved.
        folder: where the packages that came in are, at any depth.
        egress: where the packages that go out are written; nothing else is written there.
        exchange: an earlier exchange to answer once more, with the same bits.
        tell: receives lines that may be read outside the site.

    Returns:
        The folders of the answers.

    Raises:
        NotAnswered: when a question is broken, foreign or refused; a refusal is written as a package, too.
        CtfedError: when the site's or the study's file is not what it should be.
    """
    seat = _seat(load_site(site_file), load_study(study_file))
    with _scrubbed(seat, None):
        chosen = _choose(find_packages(folder, "question"), seat.name, exchange)
        asked = [(package, _checked(package, seat)) for package in chosen]
    written = []
    for package, question in asked:
        written.append(_answered(seat, package.label, question, egress))
        tell(
            f"{seat.name}: exchange {package.label.exchange} of run {package.label.run} is answered: {written[-1].name}"
        )
    return written


def _seat(site: Site, study: Study) -> _Seat:
    if site.site is None:
        raise CtfedError(f"{site.origin} describes virtual sites; one site answers for itself")
    trust = trust_of(site)
    if trust is None:
        raise CtfedError(f"{site.origin}: unmasked: found true, expected trust; answers in files are always masked")
    return _Seat(site, study, trust)


def _choose(packages: list[Package], site: str, exchange: int | None) -> list[Package]:
    mine = [package for package in packages if package.label.site == site]
    if not mine:
        others = sorted({package.label.site for package in packages})
        found = f"packages for {', '.join(others)}" if others else "no package"
        raise PackageError(f"found {found} in the folder, expected one with a question for {site}")
    runs = dict.fromkeys(package.label.run for package in mine)
    chosen = []
    for run in runs:
        of_run = [one for one in mine if one.label.run == run and exchange in (None, one.label.exchange)]
        if of_run:
            chosen.append(_only(of_run))
    if not chosen:
        raise PackageError(f"found no question of exchange {exchange} for {site}")
    return chosen


def _only(packages: list[Package]) -> Package:
    """The newest; two copies of it must be the same question."""
    newest = packages[-1]
    copies = [one for one in packages if one.label.exchange == newest.label.exchange]
    if len({one.label.question for one in copies}) > 1:
        raise PackageError(
            f"exchange {newest.label.exchange} of run {newest.label.run} is there with different questions; keep "
            "the one that the server asks now"
        )
    return newest


def _checked(package: Package, seat: _Seat) -> Question:
    """The question, when it is whole and belongs to what the site has approved.

    Raises:
        PackageError: naming the package and what is wrong with it.
    """
    label, where = package.label, f"package {package.folder.name}"
    if label.study != seat.study.sha256:
        raise PackageError(f"{where}: it is of the study {label.study[:12]}, this one is {seat.study.sha256[:12]}")
    question = package.question()
    register()
    decoded = decode_question(question, {})
    number = getattr(decoded, "round_number", -2 if isinstance(decoded, Invitation) else -1)
    if decoded.run != label.run or number != label.round_number:
        raise PackageError(f"{where}: its label names another run or exchange than the question that it holds")
    return question


def register() -> None:
    """Put every statistic's queries into the registry."""
    from ctfed.node import register_queries

    register_queries()


def _answered(seat: _Seat, label: Label, question: Question, egress: Path) -> Path:
    try:
        with _scrubbed(seat, label):
            answer = _answer(seat, question)
    except NotAnswered as error:
        rule = getattr(error.__cause__, "rule", "not-answerable")
        refusal = replace(label, kind="refusal", rule=rule)
        content = {"description.md": _refusal_text(refusal).encode()}
        write_package(egress, refusal, content)
        raise
    with _scrubbed(seat, label):
        return _write(seat, replace(label, kind="answer"), answer, egress)


def _answer(seat: _Seat, question: Question) -> Answer:
    from ctfed.cohort import load_cohort
    from ctfed.federation.responder import Responder

    guard = guard_of(seat.site, seat.study)  # first: what is not approved is not even loaded
    return Responder(load_cohort(seat.site, seat.study), guard).answer(question)


def _write(seat: _Seat, label: Label, answer: Answer, egress: Path) -> Path:
    if answer.limbs.size == 0 and label.round_number >= 0:
        raise PackageError(f"package {label.name}: the question names views without holding them; ask again")
    content = content_of(answer)
    facts = _facts(seat, label, answer)
    _forget_refusal(egress, label)
    return write_package(egress, label, content | beside(facts, content))


def _forget_refusal(egress: Path, label: Label) -> None:
    stale = egress / replace(label, kind="refusal", rule="none").name
    if stale.is_dir():
        shutil.rmtree(stale)


def _facts(seat: _Seat, label: Label, answer: Answer) -> Facts:
    entries = list(read_ledger(seat.trust.ledger / FILE, FILE))
    entry = next(one for one in entries if _is_of(one, label))
    account = account_of(entries[: entry.number + 1])
    told = account.rounds[-1].told if label.round_number >= 0 else ()
    spent = account.runs[label.run].spent
    return Facts(
        label=label,
        study=(seat.study.name, seat.study.title),
        at=entry.at,
        entry=entry.number + 1,
        policy=policy_of(seat.trust),
        told=told,
        numbers=answer.limbs.size,
        spent={name: count for name, count in spent.items() if name.startswith(BUDGETS)},
    )


def _is_of(entry: Entry, label: Label) -> bool:
    kind = {1: OPENED, 2: JOINED}.get(label.exchange, ANSWERED)
    numbered = label.exchange < FIRST_ROUND or entry.facts.get("round") == label.round_number
    return entry.kind == kind and entry.run == label.run and numbered


def _refusal_text(label: Label) -> str:
    from ctfed.report.steward_terms import RULES

    meaning = RULES.get(label.rule, "see this site's log")
    return (
        f"# {label.name}\n\nSite **{label.site}** does not answer exchange {label.exchange} of run `{label.run}`: "
        f"`{label.rule}` ({meaning}). The package holds no number.\n"
    )


@contextmanager
def _scrubbed(seat: _Seat, label: Label | None) -> Iterator[None]:
    """Within it, an error is written in full to the site's own log, and told outside by its rule or class alone."""
    try:
        yield
    except Exception as error:
        _log(seat.log, str(error) if isinstance(error, CtfedError) else traceback.format_exc())
        about = "" if label is None else f"exchange {label.exchange} of run {label.run}: "
        if isinstance(error, Refusal):
            said = f"refused by the rule {error.rule!r}"
        elif isinstance(error, PackageError):
            said = str(error)
        else:
            said = f"not answered ({type(error).__name__})"
        raise NotAnswered(f"{seat.name}: {about}{said}; {LOG} beside the ledger says more") from error


def _log(path: Path, sentence: str) -> None:
    make_private(path.parent)
    with open(path, "a", encoding="utf-8", opener=private) as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {sentence}\n")
