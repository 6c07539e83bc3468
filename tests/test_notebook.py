"""The notebook in docs: its cells run in order, and print what is stored beneath them."""

from __future__ import annotations

import base64
import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "ctfed_as_a_library.ipynb"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    """The code cells."""
    book = json.loads(NOTEBOOK.read_text())
    assert book["nbformat"] == 4
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


def _printed(cell: dict[str, Any]) -> str:
    return "".join("".join(one["text"]) for one in cell["outputs"] if one["output_type"] == "stream")


def _last_digit(number: str) -> float:
    """One unit of the last digit that was printed: what another processor's rounding can move."""
    mantissa, _, exponent = number.partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def _assert_same(printed: str, stored: str) -> None:
    assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", stored).split()
    for found, expected in zip(NUMBER.findall(printed), NUMBER.findall(stored), strict=True):
        if "." in expected or "e" in expected:
            assert float(found) == pytest.approx(float(expected), rel=0, abs=1.01 * _last_digit(expected))
        else:
            assert found == expected, "counts of patients, rounds and bytes are exact"


def test_cells_print_what_is_stored(cells: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn: list[int] = []
    monkeypatch.setattr(plt, "show", lambda: drawn.append(len(plt.gcf().axes[0].lines)))
    space: dict[str, Any] = {"__name__": "__main__"}
    try:
        for number, cell in enumerate(cells, 1):
            out = io.StringIO()
            with redirect_stdout(out):
                exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, code cell {number}", "exec"), space)
            _assert_same(out.getvalue(), _printed(cell))
    finally:
        plt.close("all")
    assert drawn == [2], "one figure with a curve of each risk group"


def test_stored_outputs_are_of_one_run_in_order(cells: list[dict[str, Any]]) -> None:
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    images = [one["data"]["image/png"] for cell in cells for one in cell["outputs"] if "data" in one]
    assert [base64.b64decode(image)[:8] for image in images] == [b"\x89PNG\r\n\x1a\n"]
    for cell in cells:
        assert all(one["output_type"] in ("stream", "display_data") for one in cell["outputs"]), "no stored error"
        assert bool(_printed(cell)) == ("print(" in "".join(cell["source"]))


@pytest.mark.parametrize("wrong", ["C 0.6655", "C 0.7653", "C 0.6653, 1", "D 0.6653"])
def test_comparison_sees_a_changed_output(wrong: str) -> None:
    _assert_same("C 0.6654", "C 0.6653")  # rounding
    with pytest.raises((AssertionError, ValueError)):
        _assert_same(wrong, "C 0.6653")
