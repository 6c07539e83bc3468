"""FilesTransport: questions and answers as packages in a folder that people carry; and what drives a study over it.

Nothing waits: a command writes the next question, or says whose answer is missing, and ends. The journal carries the
study from one command to the next, as it does over a crash.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctfed.federation.errors import CtfedError, MalformedMessage
from ctfed.federation.roster import Roster, read_roster
from ctfed.federation.wire import Answer, Question
from ctfed.rounds.package import FIRST_ROUND, Label, Package, PackageError, content_of, find_packages, write_package
from ctfed.study import load_study
from server.lookahead import Lookahead
from server.study_run import plainly, run_study

Tell = Callable[[str], None]
ASK = "ask"  # the folder of questions, below the exchange folder


class Waiting(CtfedError):
    """An exchange is not complete. Its sentence says who is missing.

    Attributes:
        exchange: its number.
        missing: sites without an answer.
        refused: site -> rule, of those that declined.
        written: the questions' folders; empty when they were not to be written.
        asked: whether the questions are in the folder.
    """

    def __init__(
        self, exchange: int, missing: Sequence[str], refused: Mapping[str, str], written: Sequence[Path], asked: bool
    ) -> None:
        self.asked = asked
        self.exchange, self.missing, self.refused, self.written = (
            exchange,
            tuple(missing),
            dict(refused),
            tuple(written),
        )
        said = [site + (f" (refused by its rule {refused[site]!r})" if site in refused else "") for site in missing]
        super().__init__(f"exchange {exchange} ({named(exchange)}) waits for {', '.join(said)}")


class _Collected(Exception):
    """A round is in the journal. The study is driven anew, so that the next question is sent with all of its views."""


def named(exchange: int) -> str:
    """What an exchange is for."""
    number = exchange - FIRST_ROUND
    return {-2: "opening of the run", -1: "census"}.get(number, f"round {number}")


class FilesTransport:
    """Asks by writing packages, and answers with what lies in the folder.

    Attributes:
        sites: of the roster, in its order.
        runner: 'files'.
        collected: exchanges whose answers were all there.
    """

    runner = "files"

    def __init__(self, folder: Path, study: str, roster: Roster, *, write: bool = True) -> None:
        """``write`` False only reads answers; ``study`` is its SHA-256."""
        self.sites = roster.sites
        self.collected: list[int] = []
        self._folder = folder
        self._study = study
        self._roster = roster.digest
        self._write = write

    def ask(self, round_number: int, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        """The answers of exactly the sites in ``questions``.

        Raises:
            Waiting: when one is not there; the questions are.
            PackageError: naming a package that is broken, foreign or of an earlier question.
        """
        if any(exchange >= FIRST_ROUND for exchange in self.collected):
            raise _Collected
        labels = {site: self._label(site, round_number, question) for site, question in questions.items()}
        found = self._answers(labels)
        answers = {}
        for site in sorted(found.keys() & labels.keys()):
            answers[site] = found[site].answer()
        exchange = round_number + FIRST_ROUND
        missing = [site for site in self.sites if site in labels and site not in answers]
        if missing:
            written = self._ask(labels, questions) if self._write else []
            raise Waiting(exchange, missing, self._refusals(labels), written, bool(written) or self._is_asked(labels))
        self.collected.append(exchange)
        return answers

    def _label(self, site: str, round_number: int, question: Question) -> Label:
        return Label(
            kind="question",
            site=site,
            exchange=round_number + FIRST_ROUND,
            run=_run_of(question),
            study=self._study,
            roster=self._roster,
            question=question.digest,
        )

    def _ask(self, labels: Mapping[str, Label], questions: Mapping[str, Question]) -> list[Path]:
        written = []
        for site, label in labels.items():
            content = content_of(questions[site])
            content["description.md"] = _description(label, questions[site]).encode()
            written.append(write_package(self._folder / ASK, label, content))
        return written

    def _answers(self, labels: Mapping[str, Label]) -> dict[str, Package]:
        """Site -> its answer of this exchange; every package of answers in the folder is judged, none passed over."""
        exchange = next(iter(labels.values())).exchange
        found: dict[str, Package] = {}
        for package in find_packages(self._folder, "answer"):
            self._check_ours(package, next(iter(labels.values())))
            label, where = package.label, f"package {package.folder.name}"
            if label.exchange > exchange >= FIRST_ROUND:  # before, a begun run is opened once more from its packages
                raise PackageError(f"{where}: it is of exchange {label.exchange}, which was not asked yet")
            if label.exchange != exchange:
                continue
            if label.question != labels[label.site].question:
                raise PackageError(f"{where}: it answers another question than the one that was asked; take it away")
            if label.site in found and found[label.site].files != package.files:
                raise PackageError(f"{where}: another answer of {label.site} is there, too, with other content")
            found[label.site] = package
        return found

    def _check_ours(self, package: Package, ours: Label) -> None:
        label, where = package.label, f"package {package.folder.name}"
        if label.site not in self.sites:
            raise PackageError(f"{where}: {label.site!r} is not in the roster ({', '.join(self.sites)})")
        for what in ("run", "study", "roster"):
            theirs, own = str(getattr(label, what)), str(getattr(ours, what))
            if theirs != own:
                raise PackageError(f"{where}: it is of the {what} {theirs[:16]}, this one is {own[:16]}; take it away")

    def _is_asked(self, labels: Mapping[str, Label]) -> bool:
        asked = {label.question for label in labels.values()}
        return any(package.label.question in asked for package in find_packages(self._folder, "question"))

    def _refusals(self, labels: Mapping[str, Label]) -> dict[str, str]:
        asked = {label.question for label in labels.values()}
        found = find_packages(self._folder, "refusal")
        return {one.label.site: one.label.rule for one in found if one.label.question in asked}


def _run_of(question: Question) -> str:
    """The run that a question of our own names."""
    header = json.loads(question.header)
    body = header.get("open") or header.get("census") or header
    run = body.get("run") or body.get("fields", {}).get("run")
    if not isinstance(run, str):
        raise MalformedMessage("a question names no run")
    return run


def _description(label: Label, question: Question) -> str:
    """What a question asks, for the person who carries it in."""
    from ctfed.report.steward_terms import meaning

    queries = json.loads(question.header).get("queries", [])
    kinds = Counter(str(query["kind"]) for query in queries)
    lines = [
        f"# {label.name}",
        "",
        f"Question to site **{label.site}**: exchange {label.exchange} ({named(label.exchange)}) of run `{label.run}`.",
        f"Study SHA-256 `{label.study}`.",
        "",
        "It holds no data of patients: names of questions, and numbers such as coefficients and bin edges. To answer:",
        "",
        "    ctfed round answer --site site.yaml --study study.yaml --folder THIS_FOLDER",
        "",
    ]
    lines += [f"- `{kind}`{f' x {count}' if count > 1 else ''}: {meaning(kind)}" for kind, count in kinds.items()]
    return "\n".join(lines) + "\n"


# -- driving a study


@dataclass(frozen=True)
class Settings:
    """Where a study over files lives.

    Attributes:
        study: its file.
        roster: the sites' public keys.
        folder: of packages, both ways.
        out: journal and results.
        lookahead: ask a question early when it is the same whatever the answers before it are.
    """

    study: Path
    roster: Path
    folder: Path
    out: Path
    lookahead: bool = True


def advance(settings: Settings, *, write: bool = True, tell: Tell = print) -> Waiting | None:
    """Read what has come back, and ask what is next; None when the study is finished and its report is written.

    Args:
        settings: the study's.
        write: whether to write the next question, or only to read answers.
        tell: receives the lines of progress.

    Raises:
        PackageError: naming a package that is broken, foreign or of an earlier question.
        CtfedError: in words; what was journalled is kept.
    """
    study, roster = load_study(settings.study), read_roster(settings.roster)
    while True:
        transport = FilesTransport(settings.folder, study.sha256, roster, write=write)
        ahead = Lookahead(study, len(roster.sites), settings.out / "journal") if settings.lookahead else None
        lines: list[str] = []
        try:
            run_study(
                settings.study,
                settings.out,
                transport,
                settings.out / "journal",
                lines.append,
                ["Every question and answer was carried as files."],
                roster,
                plainly if ahead is None else ahead.around,
            )
        except _Collected:
            _say(transport, tell)
        except Waiting as waiting:
            _say(transport, tell)
            return waiting
        else:
            _say(transport, tell)
            for line in lines[-2:]:
                tell(line)
            return None


def _say(transport: FilesTransport, tell: Tell) -> None:
    for exchange in transport.collected:
        tell(f"exchange {exchange} ({named(exchange)}): the answers of all {len(transport.sites)} sites are added up")
