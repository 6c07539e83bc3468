"""FlowerTransport: one round over any Flower grid. Every site of the roster answers, or the study stops in words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from flwr.app import RecordDict
from flwr.serverapp import Grid

from ctfed import __version__
from ctfed.federation.errors import CtfedError, MalformedMessage
from ctfed.federation.flower.exchange import Exchange, Patience, Pursuit
from ctfed.federation.flower.grid import group_id
from ctfed.federation.flower.records import ASK, HELLO, pack_question, unpack_answer, unpack_hello
from ctfed.federation.wire import MAX_ANSWER_HEADER, Answer, Question
from server.assembly import CENSUS_ROUND, OPENING_ROUND
from server.refusals import advice, is_lasting

Tell = Callable[[str], None]


class WrongNodes(CtfedError):
    """The nodes that are present are not the sites of the federation."""


class SiteLost(CtfedError):
    """Sites did not answer a round in time. The round is not summed without them.

    Attributes:
        sites: the sites that are missing.
        round_number: the round that waits for them.
        reasons: site -> last thing heard: 'refused:<rule>', 'error:<class>', or what the network said.
    """

    def __init__(self, sentence: str, round_number: int, reasons: Mapping[str, str]) -> None:
        super().__init__(sentence)
        self.round_number = round_number
        self.reasons = dict(reasons)
        self.sites = tuple(reasons)


class FlowerTransport:
    """Carries a round's questions to the sites and brings back one matching answer from each.

    Attributes:
        sites: names of the roster, in its order.
        runner: 'in-process', 'flower-simulation' or 'flower-deployment'.
    """

    def __init__(
        self, grid: Grid, nodes: Mapping[str, int], *, runner: str, patience: Patience | None = None, tell: Tell = print
    ) -> None:
        """``nodes`` maps site name -> Flower node id; see ``connect``."""
        self.sites: tuple[str, ...] = tuple(nodes)
        self.runner = runner
        self._grid = grid
        self._nodes = dict(nodes)
        self._patience = patience or Patience()
        self._tell = tell

    @classmethod
    def connect(
        cls,
        grid: Grid,
        roster: Sequence[str] | None,
        *,
        runner: str,
        patience: Patience | None = None,
        tell: Tell = print,
    ) -> FlowerTransport:
        """Greet the nodes until every site of the roster is there. None takes the nodes that are online as the roster.

        Raises:
            WrongNodes: when two nodes have one name, a name is not in the roster, versions differ, or a site has not
                come after ``patience.join`` seconds.
        """
        patience = patience or Patience()
        nodes = _greet(grid, roster, patience, tell)
        names = sorted(nodes) if roster is None else list(roster)
        return cls(grid, {name: nodes[name] for name in names}, runner=runner, patience=patience, tell=tell)

    def ask(self, round_number: int, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        """The answer of every site in ``questions``, in the roster's order.

        A site that errs, declines or is away is named, waited for and asked again.

        Raises:
            SiteLost: when a site has not answered after ``patience.deadline`` seconds (``patience.refused`` while it
                declines, ``patience.lasting`` while it declines by a rule that will not change, and was asked twice).
        """
        exchange = self._start(round_number, questions)
        watch = _Watch(self._patience, self._tell, _named(round_number), len(questions))
        while True:
            exchange.step()
            if not exchange.waiting:
                return {site: exchange.answers[site] for site in self.sites if site in questions}
            watch.report(exchange, lambda: _asked(questions, exchange, "; asked: "))
            self._lose_patience(exchange, round_number, questions)
            exchange.pause()

    def _start(self, round_number: int, questions: Mapping[str, Question]) -> Exchange[Answer]:
        unknown = sorted(set(questions) - set(self.sites))
        if unknown:
            raise WrongNodes(f"{_named(round_number)} asks {unknown}, who are not in the roster {list(self.sites)}")

        def read(site: str, records: RecordDict) -> Answer:
            answer = unpack_answer(records)
            _check_echo(answer, questions[site])
            return answer

        exchange = Exchange(self._grid, ASK, group_id(round_number), read, self._patience)
        packed: dict[int, RecordDict] = {}  # most rounds ask all sites the same question; pack it once
        for site, question in questions.items():
            if id(question) not in packed:
                packed[id(question)] = pack_question(question)
            exchange.ask(site, self._nodes[site], packed[id(question)])
        return exchange

    def _lose_patience(self, exchange: Exchange[Answer], round_number: int, questions: Mapping[str, Question]) -> None:
        patience, elapsed = self._patience, exchange.elapsed
        lost = {site: pursuit.last for site, pursuit in exchange.waiting.items() if elapsed > _limit(pursuit, patience)}
        if not lost:
            return
        said = "; ".join(f"{site}: {reason}" for site, reason in lost.items())
        raise SiteLost(
            f"{_named(round_number)} stops after {elapsed:.0f} s without {len(lost)} of {len(questions)} sites ({said})"
            f"{_asked(questions, exchange, '. It asked: ')}. {_next_step(exchange, lost)}",
            round_number,
            lost,
        )


def _limit(pursuit: Pursuit, patience: Patience) -> float:
    """Seconds that a site is waited for after its last word."""
    if pursuit.asked > 1 and is_lasting(pursuit.last, pursuit.asked):
        return min(patience.lasting, patience.refused)
    return patience.refused if pursuit.refused else patience.deadline


def _next_step(exchange: Exchange[Answer], lost: Mapping[str, str]) -> str:
    """What to do about lost sites, in whole sentences."""
    if not any(is_lasting(said, exchange.waiting[site].asked) for site, said in lost.items()):
        known = advice(lost.values())
        so = f"{known}. " if known else ""
        return f"{so}No site was left out of a sum; started again, the study goes on from here."
    return (
        f"What can be changed: {advice(lost.values())}. Until then the site declines whenever it is asked; its own log "
        "says more. No site was left out of a sum."
    )


class _Watch:
    """Says what is being waited for: at once when a site errs, and every few seconds."""

    def __init__(self, patience: Patience, tell: Tell, what: str, size: int) -> None:
        self._patience = patience
        self._tell = tell
        self._what = what
        self._size = size
        self._next = patience.progress
        self._failures: Counter[str] = Counter()

    def report(self, exchange: Exchange[Answer], suffix: Callable[[], str]) -> None:
        failures = Counter({name: pursuit.failures for name, pursuit in exchange.waiting.items()})
        news = [name for name, count in failures.items() if count == 1 and self._failures[name] == 0]
        self._failures |= failures
        if not news and exchange.elapsed < self._next:
            return
        self._next = exchange.elapsed + self._patience.progress
        names = news or list(exchange.waiting)
        said = ", ".join(_describe(name, exchange.waiting[name]) for name in names[:10])
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        self._tell(
            f"{self._what}: {self._size - len(exchange.waiting)} of {self._size} sites have answered; "
            f"waiting {exchange.elapsed:.0f} s for {said}{more}{suffix()}"
        )


def _describe(name: str, pursuit: Pursuit) -> str:
    times = f", asked {pursuit.asked} times" if pursuit.asked > 1 else ""
    return f"{name} ({pursuit.last}{times})"


def _check_echo(answer: Answer, question: Question) -> None:
    """The answer must name the question it answers; an older round's answer does not."""
    if len(answer.header) > MAX_ANSWER_HEADER:
        raise MalformedMessage(f"its header is longer than {MAX_ANSWER_HEADER} characters")
    try:
        header = json.loads(answer.header)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage("its header is not JSON") from error
    if not isinstance(header, dict) or header.get("question") != question.digest:
        raise MalformedMessage("it answers another question")


def _named(round_number: int) -> str:
    """What a round is called in sentences; the two exchanges before the first one have names."""
    names = {OPENING_ROUND: "the opening of the run", CENSUS_ROUND: "the census of the run"}
    return names.get(round_number, f"round {round_number}")


def _asked(questions: Mapping[str, Question], exchange: Exchange[Answer], words: str) -> str:
    """``words`` and the kinds of query that the first waiting site was asked; '' before the first round."""
    site = next(iter(exchange.waiting))
    queries = json.loads(questions[site].header).get("queries", [])
    kinds = Counter(str(query["kind"]) for query in queries)
    return words + ", ".join(f"{kind} x {count}" for kind, count in sorted(kinds.items())) if kinds else ""


def _greet(grid: Grid, roster: Sequence[str] | None, patience: Patience, tell: Tell) -> dict[str, int]:
    """Ask every node that comes online for its name until the roster is complete: site name -> node id."""
    exchange: Exchange[str] = Exchange(grid, HELLO, group_id(None), _read_hello, patience)
    expected = set(roster) if roster is not None else None
    ids: dict[str, int] = {}  # 'node <id>' -> id
    next_line = patience.progress
    while True:
        for node_id in grid.get_node_ids():
            name = f"node {node_id}"
            if name not in ids:
                ids[name] = node_id
                exchange.ask(name, node_id, RecordDict())
        exchange.step()
        nodes = _by_site(exchange, ids, expected)
        complete = bool(ids) and not exchange.waiting if expected is None else set(nodes) == expected
        if complete:
            return nodes
        state = _roster_state(nodes, expected, exchange)
        if exchange.elapsed > patience.join:
            raise WrongNodes(f"the roster is not complete after {exchange.elapsed:.0f} s: {state}")
        if exchange.elapsed > next_line:
            next_line = exchange.elapsed + patience.progress
            tell(state)
        exchange.pause()


def _roster_state(nodes: Mapping[str, int], expected: set[str] | None, exchange: Exchange[str]) -> str:
    parts = [f"{len(nodes)} sites are here ({', '.join(sorted(nodes)) or 'none'})"]
    missing = sorted((expected or set()) - set(nodes))
    if missing:
        parts.append(f"waiting for {', '.join(missing)}")
    words = Counter(pursuit.last for pursuit in exchange.waiting.values())
    parts += [f"{count} node{'s' if count > 1 else ''}: {last}" for last, count in words.most_common(5)]
    return "; ".join(parts)


def _read_hello(name: str, records: RecordDict) -> str:
    site, version = unpack_hello(records)
    if version != __version__:
        raise WrongNodes(f"site {site!r} runs ctfed {version}, the server {__version__}: install the same version")
    return site


def _by_site(exchange: Exchange[str], ids: Mapping[str, int], expected: set[str] | None) -> dict[str, int]:
    nodes: dict[str, int] = {}
    for name, site in exchange.answers.items():
        if expected is not None and site not in expected:
            raise WrongNodes(f"{name} calls itself {site!r}, which is not in the roster {sorted(expected)}")
        if site in nodes:
            raise WrongNodes(f"two nodes ({nodes[site]} and {ids[name]}) call themselves {site!r}")
        nodes[site] = ids[name]
    return nodes
