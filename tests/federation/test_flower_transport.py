"""A round over Flower: every site answers its own question, whatever goes wrong on the way; or the study stops."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from flower_support import QUICK, SITES, Doubler, Failing, connect, in_process, question, sites
from flwr.app import RecordDict

from ctfed import node
from ctfed.federation.errors import Refusal
from ctfed.federation.flower.grid import Fault, FaultKind, InProcessGrid, SimulatedCrash
from server import transport as transport_module
from server.transport import FlowerTransport, SiteLost, WrongNodes


@pytest.fixture
def doublers() -> Iterator[dict[str, Doubler]]:
    made = {name: Doubler() for name in SITES}
    with sites({name: lambda name=name: made[name] for name in SITES}):  # type: ignore[misc]
        yield made


def _ask(transport: FlowerTransport, round_number: int) -> dict[str, list[int]]:
    asked = question(round_number)
    return {
        site: answer.limbs.tolist() for site, answer in transport.ask(round_number, dict.fromkeys(SITES, asked)).items()
    }


def _expected(round_number: int) -> dict[str, list[int]]:
    return dict.fromkeys(SITES, (2 * question(round_number).values).astype(int).tolist())


def test_every_site_answers_every_round(doublers: dict[str, Doubler]) -> None:
    transport = connect(in_process())
    assert transport.sites == SITES
    assert transport.runner == "in-process"
    assert [_ask(transport, number) for number in range(3)] == [_expected(number) for number in range(3)]
    assert {name: doubler.asked for name, doubler in doublers.items()} == dict.fromkeys(SITES, 3)


def test_each_site_may_get_its_own_question(doublers: dict[str, Doubler]) -> None:
    transport = connect(in_process())
    answers = transport.ask(1, {"lyon": question(7), "bern": question(8, size=5)})
    assert list(answers) == ["bern", "lyon"]
    assert answers["bern"].limbs.size == 5
    assert answers["lyon"].limbs.tolist() == [140, 142, 144]


@pytest.mark.parametrize("kind", ["drop", "error", "delay", "duplicate", "corrupt", "stale", "restart"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_fault_changes_no_number(doublers: dict[str, Doubler], kind: FaultKind, times: int) -> None:
    grid = in_process(faults=[Fault(kind, "lyon", 1, times=times, seconds=0.05)])
    transport = connect(grid)
    assert [_ask(transport, number) for number in range(3)] == [_expected(number) for number in range(3)]


def test_faults_at_several_sites_change_no_number(doublers: dict[str, Doubler]) -> None:
    faults = [
        Fault("duplicate", "bern", 1),
        Fault("stale", "bern", 2),
        Fault("corrupt", "lyon", 1, times=2),
        Fault("drop", "oslo", 1),
        Fault("error", "oslo", 2, times=2),
        Fault("drop", "oslo", None),
    ]
    patience = dataclasses.replace(QUICK, join=5.0)
    transport = connect(in_process(faults=faults, workers=3), patience)
    assert [_ask(transport, number) for number in range(4)] == [_expected(number) for number in range(4)]


def test_a_crash_of_the_server_is_not_caught(doublers: dict[str, Doubler]) -> None:
    transport = connect(in_process(faults=[Fault("crash", "lyon", 1)]))
    _ask(transport, 0)
    with pytest.raises(SimulatedCrash):
        _ask(transport, 1)
    assert doublers["lyon"].asked == 2, "the site has answered the round that the server never took in"


def test_a_silent_site_is_named_and_never_left_out(doublers: dict[str, Doubler]) -> None:
    lines: list[str] = []
    grid = in_process(faults=[Fault("drop", "oslo", 1, times=1000)])
    transport = connect(grid, dataclasses.replace(QUICK, deadline=0.4), lines)
    with pytest.raises(
        SiteLost, match=r"round 1 .* without 1 of 3 sites \(oslo: no reply yet\).*cox_derivatives x 2"
    ) as lost:
        _ask(transport, 1)
    assert lost.value.sites == ("oslo",)
    assert lost.value.round_number == 1
    progress = [line for line in lines if line.startswith("round 1: 2 of 3 sites have answered")]
    assert len(progress) >= 2
    assert all("oslo" in line and "cox_derivatives x 2" in line for line in progress)


def test_an_error_is_told_by_its_class_alone() -> None:
    lines: list[str] = []
    broken = {"bern": Doubler, "lyon": lambda: Failing(KeyError("patient 12345")), "oslo": Doubler}
    with sites(broken):
        transport = connect(in_process(), dataclasses.replace(QUICK, deadline=0.2), lines)
        with pytest.raises(SiteLost) as lost:
            _ask(transport, 4)
    assert lost.value.reasons == {"lyon": "error:KeyError"}
    assert "12345" not in str(lost.value) + "".join(lines)
    assert lines[0].startswith("round 4: 2 of 3 sites have answered; waiting 0 s for lyon (error:KeyError)")


def test_a_refusal_is_told_by_its_rule_and_has_its_own_deadline() -> None:
    refusing = {
        "bern": Doubler,
        "lyon": Doubler,
        "oslo": lambda: Failing(Refusal("min_patients", "3 of patient 12345")),
    }
    with sites(refusing):
        transport = connect(in_process(), dataclasses.replace(QUICK, deadline=60.0, refused=0.1))
        with pytest.raises(SiteLost) as lost:
            _ask(transport, 4)
    assert lost.value.reasons == {"oslo": "refused:min_patients"}
    assert "12345" not in str(lost.value)


def test_a_site_that_recovers_is_taken_in() -> None:
    grid = in_process(faults=[Fault("error", "bern", 2, times=4)])
    lines: list[str] = []
    with sites(dict.fromkeys(SITES, Doubler)):
        assert _ask(connect(grid, lines=lines), 2) == _expected(2)
    assert any("bern (error:_InjectedFault" in line for line in lines)


def test_a_site_that_does_not_come_is_missing_in_words() -> None:
    with sites(dict.fromkeys(SITES, Doubler)), pytest.raises(WrongNodes, match="waiting for rome"):
        FlowerTransport.connect(
            in_process(), [*SITES, "rome"], runner="in-process", patience=QUICK, tell=lambda _: None
        )


def test_a_name_outside_the_roster_is_an_error() -> None:
    with sites(dict.fromkeys(SITES, Doubler)), pytest.raises(WrongNodes, match="calls itself 'oslo'"):
        FlowerTransport.connect(in_process(), SITES[:2], runner="in-process", patience=QUICK, tell=lambda _: None)


def test_a_name_twice_is_an_error() -> None:
    grid = InProcessGrid(in_process().client_app, {"a": {"site": "bern"}, "b": {"site": "bern"}})
    with sites(dict.fromkeys(SITES, Doubler)), pytest.raises(WrongNodes, match="call themselves 'bern'"):
        FlowerTransport.connect(grid, ["bern"], runner="in-process", patience=QUICK, tell=lambda _: None)


def test_another_version_is_an_error(doublers: dict[str, Doubler], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "__version__", "9.9")
    with pytest.raises(WrongNodes, match=r"runs ctfed .*, the server 9\.9"):
        connect(in_process())


def test_without_a_roster_the_nodes_are_the_roster(doublers: dict[str, Doubler]) -> None:
    transport = FlowerTransport.connect(in_process(), None, runner="in-process", patience=QUICK, tell=lambda _: None)
    assert transport.sites == SITES


def test_a_node_without_a_site_says_so() -> None:
    node.set_responder_factory(None)
    lines: list[str] = []
    with pytest.raises(WrongNodes, match="error:CtfedError"):
        connect(in_process(), lines=lines)


def test_a_message_of_another_kind_is_answered_with_a_name_only(doublers: dict[str, Doubler]) -> None:
    from flwr.app import Message

    grid = in_process()
    message = Message(RecordDict(), next(iter(grid.get_node_ids())), "train")
    (reply,) = grid.send_and_receive([message], timeout=1)
    assert reply.error.reason == "error:ValueError"


def test_the_round_trip_stays_cheap(doublers: dict[str, Doubler]) -> None:
    """Loose by a factor of ten, so that a busy machine does not fail it: the target is 2 ms per site and round."""
    import time

    transport = connect(in_process())
    _ask(transport, 0)
    start = time.perf_counter()
    for number in range(1, 6):
        transport.ask(number, dict.fromkeys(SITES, question(number, size=1000)))
    assert (time.perf_counter() - start) / 5 < 0.020 * len(SITES)


@pytest.mark.parametrize("size", [2000, 40_000])
def test_values_survive_the_wire_exactly(doublers: dict[str, Doubler], size: int) -> None:
    transport = connect(in_process(faults=[Fault("corrupt", "bern", 3)]))
    asked = question(3, size)
    for answer in transport.ask(3, dict.fromkeys(SITES, asked)).values():
        assert np.array_equal(answer.limbs, (2 * asked.values).astype(np.int64))
