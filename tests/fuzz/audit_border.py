"""Decode hostile messages under an audit hook, and print which of the interpreter's events they caused, as JSON.

Run as a process of its own by test_no_code.py. First every target takes in its seeds, so that modules are imported and
annotations resolved; what happens after that is caused by the messages.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import border
import numpy as np
import targets
from instances import concrete, make_any
from mutations import copied, repaired

from ctfed.federation import CtfedError, Query
from ctfed.federation.codec import Encoder, canonical_json
from ctfed.federation.ledger import Ledger
from ctfed.federation.responder import Responder
from ctfed.federation.wire import FORMAT, Question

WATCHED = {
    *("compile", "exec", "import", "code.__new__", "function.__new__", "marshal.loads", "marshal.load"),
    *("pickle.find_class", "ctypes.dlopen", "ctypes.dlsym", "os.system", "os.exec", "os.fork", "os.posix_spawn"),
    *("os.spawn", "os.startfile", "pty.spawn", "subprocess.Popen", "socket.connect", "socket.bind", "urllib.Request"),
    *("os.rename", "os.rmdir", "os.chmod", "os.link", "os.symlink", "shutil.rmtree"),
    *("gc.get_objects", "sys.settrace", "sys.setprofile", "webbrowser.open"),
}
MOVED = {"os.remove", "os.mkdir"}  # allowed where files may be written


class Watch:
    """Counts watched events, and files that are opened to be written, while it is armed."""

    def __init__(self) -> None:
        self.armed = False
        self.events: Counter[str] = Counter()
        self.written: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event in MOVED or (event == "open" and _writes(arguments)):
            self.written.append(str(arguments[0]))
        elif event in WATCHED:
            self.events[event] += 1


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    return any(letter in str(mode or "") for letter in "wax+") or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


class Bomb:
    """A pickle that would leave a file behind."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch /tmp/ctfed-was-here",)


def hostile() -> list[bytes]:
    """Things that some decoder somewhere would run."""
    pickled = pickle.dumps(Bomb())
    name = "__import__('os').system('true')"
    bodies = [
        {"kind": "os.system", "command": "true"},
        {"kind": "__class__", "name": name},
        {"kind": "counts", "view": {"py/object": "os.system"}},
        {"kind": "counts", "view": {"shared": name}},
        {"kind": name},
        {"kind": "ctfed.federation.view.View"},
        {"kind": "within", "column": name, "low": 0, "high": 1},
    ]
    headers = [
        canonical_json({"ctfed": FORMAT, "run": "run", "round": 0, "assembly": None, "shared": {}, "queries": [body]})
        for body in bodies
    ]
    yaml_bombs = [
        b"0!!python/object/apply:os.system [true]",
        b"0ctfed_study: !!python/name:os.system",
        b"0ctfed_study: 1\nname: !!python/object/new:subprocess.Popen [[true]]\n",
        b"1ctfed_site: 1\nsite: *a",
    ]
    return [pickled, b"6" + pickled, b"6" + targets.hostile_zip(), *yaml_bombs, *(one.encode() for one in headers)]


def strange_names(rng: random.Random) -> list[Question]:
    """Well-formed questions whose columns are called like code, paths and commands."""
    names = ["__import__('os').system('true')", "../../etc/passwd", "$(true)", "{0.__class__}", "%s%n", "\n# x", "-rf"]
    made = []
    for name in names:
        for kind in ("counts", "moments", "level-counts", "counts-below"):
            query: Query = make_any(kind, rng)
            encoder, bodies = Encoder(), Encoder()
            asked = [encoder.encode(query)]
            shared = {key: copied(bodies.body(view)) for key, view in sorted(encoder.shared.items())}
            header = {"ctfed": FORMAT, "run": "run", "round": 0, "assembly": None, "shared": shared, "queries": asked}
            text = canonical_json(header).replace('"name":"a"', f'"name":{json.dumps(name)}')
            values = np.concatenate([bodies.flat(), encoder.flat()])
            fixed = repaired(json.loads(text), values)
            made.append(Question(json.dumps(fixed), values))
    return made


def messages(rng: random.Random) -> list[tuple[targets.Target, bytes]]:
    """Hostile, strange and damaged inputs of every target."""
    every = [cls() for cls in targets.TARGETS.values()]
    made = [(target, data) for target in every for data in hostile()]
    questions = next(target for target in every if isinstance(target, targets.Questions))
    made += [(questions, targets.packed(one.header, one.values)) for one in strange_names(rng)]
    for target in every:
        seeds = target.seeds()
        count = 100 if isinstance(target, targets.Configs) else 700
        made += [(target, target.damaged(rng.choice(seeds), rng)) for _ in range(count)]
        for seed in seeds:  # everything that is imported or resolved at the first use is so now
            target.run(seed)
    site = Responder(border.cohorts()["bern"])
    for name in concrete(Query):
        for number in range(20):
            query = make_any(name, random.Random(number))
            _answered(site, border.encode_question("run", 0, (query,), frozenset()))
    return made


def _answered(site: Responder, question: Question) -> bool:
    try:
        site.answer(question)
    except CtfedError:
        return False
    return True


def control(watch: Watch, folder: Path) -> dict[str, int]:
    """What the watch sees when code is run: it must not be blind."""
    watch.armed = True
    exec(compile("1", "<control>", "eval"))
    pickle.loads(pickle.dumps(Path))
    (folder / "control").write_text("x")
    subprocess.Popen(["true"]).wait()
    watch.armed = False
    names = ("compile", "exec", "pickle.find_class", "subprocess.Popen")
    seen = {**{name: min(watch.events[name], 1) for name in names}, "open": len(watch.written)}
    watch.events.clear()
    watch.written.clear()
    return seen


def main() -> None:
    """Print one line of JSON."""
    rng = random.Random(7)
    inputs = messages(rng)
    watch = Watch()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seen = control(watch, folder)
        site = border.fresh(lenient=True)
        assert site.guard is not None
        ledger = Ledger(folder / "ledger")
        for entry in border._entries():
            ledger.append(entry.kind, entry.run, entry.facts)
        site.guard.ledger = ledger
        usual = border.seed_questions(3)[2]
        site.answer(usual)
        understood = 0
        watch.armed = True
        for target, data in inputs:
            understood += target.run(data)
            if isinstance(target, targets.Questions):
                _answered(site, Question(*targets.unpacked(data, "<f8")))
        watch.armed = False
        folders = [str(folder / "ledger"), *(t.folder.as_posix() for t, _ in inputs if isinstance(t, targets.Files))]
    outside = [path for path in watch.written if not path.startswith(tuple(folders))]
    # The ledger and its answers are written by design; what the harness itself writes and removes are its own inputs.
    said = {
        "events": dict(watch.events),
        "outside": outside,
        "messages": len(inputs),
        "understood": understood,
        "control": seen,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
