"""The cache: whole or absent, and a key for everything that a result depends on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ctfed.cohort.faults import CaseFault
from ctfed.federation.errors import CtfedError
from ctfed.preparation.atomic import TEMPORARY, held, remove_unfinished, write_file, write_text
from ctfed.preparation.cache import Cache, DamagedEntry, Result, key_of
from ctfed.preparation.code import Code, statements
from ctfed.preparation.digests import file_digests

KEY = "ab" * 32


def test_a_result_comes_back_with_all_its_bits(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    values = {"x": [0.1, float("nan"), 1e-300], "text": "Ångström", "none": None}
    arrays = {"mask": np.packbits(np.arange(17) % 3 == 0), "image": np.linspace(0, 1, 7, dtype=np.float32)}
    cache.put(KEY, Result.of(values, arrays))
    found = Cache(tmp_path).get(KEY)
    assert found is not None
    assert repr(found.values) == repr(dict(sorted(values.items())))
    assert repr(Result.of(values).values) == repr(found.values)  # the same before it is kept, in the same order
    assert found.digest == Result.of(values, arrays).digest
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)


def test_a_fault_is_a_result(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put(KEY, Result.of_fault(CaseFault("empty-mask", "found no voxel, expected some")))
    found = cache.get(KEY)
    assert found is not None
    with pytest.raises(CaseFault, match="found no voxel") as caught:
        found.require()
    assert caught.value.rule == "empty-mask"


def test_a_key_changes_with_each_thing_that_a_result_depends_on() -> None:
    before = Result.of({"x": 1})
    base = ("radiomics", "1", {"width": 25}, {"a.dcm": "00"}, {"image": before})
    changed = [
        ("kernel", *base[1:]),
        (base[0], "2", *base[2:]),
        (*base[:2], {"width": 10}, *base[3:]),
        (*base[:3], {"a.dcm": "01"}, base[4]),
        (*base[:4], {"image": Result.of({"x": 2})}),
        (*base[:4], {"image": Result.of({"x": 1}, {"m": np.zeros(1)})}),
    ]
    keys = [key_of(*each) for each in (base, *changed)]
    assert len(set(keys)) == len(keys)
    assert key_of(*base) == key_of(base[0], base[1], {"width": 25}, {"a.dcm": "00"}, {"image": Result.of({"x": 1})})


@pytest.mark.parametrize("name", ["result.json", "arrays.npz"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_entry_is_removed_and_never_believed(tmp_path: Path, name: str, damage: str) -> None:
    cache = Cache(tmp_path)
    cache.put(KEY, Result.of({"x": 1}, {"m": np.arange(1000)}))
    [path] = tmp_path.rglob(name)
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif name == "arrays.npz":
        np.savez_compressed(path, m=np.arange(1000) + 1)
    else:
        path.write_text("{}")
    found = cache.get(KEY)
    if found is not None:
        with pytest.raises(DamagedEntry):
            _ = found.arrays
    assert cache.get(KEY) is None


def test_an_entry_that_is_there_already_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put(KEY, Result.of({"x": 1}))
    cache.put(KEY, Result.of({"x": 1}))
    assert cache.get(KEY) is not None
    assert not list(tmp_path.rglob(f"{TEMPORARY}*"))


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_file(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def test_a_killed_writer_leaves_only_what_the_next_run_removes(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from ctfed.preparation import cache\nfrom ctfed.preparation.cache import Cache, Result\n"
        "c = Cache(Path(sys.argv[1]))\nc.put('aa' * 32, Result.of({'x': 1}))\n"
        "np.savez_compressed = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "c.put('bb' * 32, Result.of({'x': 2}, {'m': np.zeros(3)}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert Cache(tmp_path).get("aa" * 32) is not None
    assert Cache(tmp_path).get("bb" * 32) is None
    assert remove_unfinished(tmp_path) == 1
    assert remove_unfinished(tmp_path) == 0
    assert Cache(tmp_path).get("aa" * 32) is not None


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(CtfedError, match="another `ctfed prepare` at work"), held(tmp_path):
        pass
    with held(tmp_path):
        pass


def test_comments_and_docstrings_are_no_part_of_a_code_version() -> None:
    plain = "def f(x):\n    return x + 1\n"
    dressed = '"""Module."""\n\n\ndef f(x):\n    """Add one."""\n    # because\n    return (x\n            + 1)\n'
    assert statements(plain) == statements(dressed)
    assert statements(plain) != statements(plain.replace("+ 1", "+ 2"))


def test_a_code_version_covers_all_modules_of_a_package_and_its_libraries() -> None:
    whole = Code(("ctfed.preparation",))
    assert whole.version == Code(("ctfed.preparation",)).version
    assert whole.version != Code(("ctfed.preparation.cache",)).version
    assert whole.version != Code(("ctfed.preparation",), ("numpy", "scipy")).version
    with pytest.raises(ModuleNotFoundError):
        _ = Code(("ctfed.no_such_module",)).version


def test_digests_are_remembered_until_a_file_changes(tmp_path: Path) -> None:
    scans, memory = tmp_path / "scans", tmp_path / "memory" / "p.json"
    scans.mkdir()
    file = scans / "Übersicht 1.dcm"
    file.write_bytes(b"one")
    os.utime(file, (1e9, 1e9))
    first = file_digests([file, file], scans, memory)
    assert list(first) == ["Übersicht 1.dcm"]
    state = file.stat()
    file.write_bytes(b"two")  # same size; with the time of change set back, nothing tells it from the first
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file_digests([file], scans, memory) == first
    os.utime(file, (1e9 + 1, 1e9 + 1))
    assert file_digests([file], scans, memory) != first
    memory.write_text("[")
    assert file_digests([file], scans, memory) != first


def test_a_fresh_file_is_not_remembered(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    first = file_digests([file], tmp_path, tmp_path / "m.json")
    file.write_bytes(b"two")
    assert file_digests([file], tmp_path, tmp_path / "m.json") != first


def test_a_file_that_is_gone_is_a_fault_of_the_patient(tmp_path: Path) -> None:
    with pytest.raises(CaseFault) as caught:
        file_digests([tmp_path / "secret name"], tmp_path, tmp_path / "m.json")
    assert caught.value.rule == "unreadable-file"
    assert "secret name" not in str(caught.value)
