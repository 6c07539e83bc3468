"""The items of the reporting guidelines: their numbers, their weights, and whose words stand for them."""

from __future__ import annotations

import json
from pathlib import Path

from ctfed.report.reader import Reader
from ctfed.report.site_checklist_items import CLEAR, METRICS, TRIPOD, WORDING
from ctfed.report.site_checklists import _clear, _metrics, _tripod
from ctfed.report.site_sections_more import checklist_blocks

# How many letters each item of TRIPOD+AI's Table 2 has; items without letters count none.
LETTERS = {3: 3, 5: 2, 6: 3, 8: 3, 9: 3, 12: 7, 18: 6, 20: 3, 23: 2, 27: 3}


def test_metrics_is_the_published_list(shared_data: Path) -> None:
    published = json.loads((shared_data / "platform" / "metrics_items.json").read_text(encoding="utf-8"))["items"]
    assert [(str(row["n"]), row["item"], row["weight"]) for row in published] == list(METRICS)


def test_numbers_are_those_of_the_guidelines() -> None:
    assert [number for number, _ in CLEAR] == [str(n) for n in range(1, 59)]
    expected = [
        name for n in range(1, 28) for name in ([f"{n}{'abcdefg'[k]}" for k in range(LETTERS.get(n, 0))] or [str(n)])
    ]
    assert [number for number, _ in TRIPOD] == expected
    assert len(expected) == 52


def test_what_is_filled_in_belongs_to_an_item() -> None:
    class Anything(dict[str, str]):
        def __missing__(self, key: str) -> str:
            return key

    known = Anything()
    assert set(_metrics(known)) <= {number for number, _, _ in METRICS}
    assert set(_clear(known)) <= {number for number, _ in CLEAR}
    assert set(_tripod(known)) <= {number for number, _ in TRIPOD}


def test_a_paraphrase_is_called_one() -> None:
    assert all("paraphrases" in WORDING[key] for key in ("clear", "tripod"))
    rows = [{"item": "1", "subject": "Title", "evidence": ""}]
    content = {"checklists": {key: {"rows": rows, "wording": WORDING[key]} for key in WORDING}}
    notes = [block.note for block in checklist_blocks(Reader(content)) if hasattr(block, "note")]
    assert notes == [WORDING["metrics"], WORDING["clear"], WORDING["tripod"]]
