"""A site's policy: its defaults are the example file, and what it does not know is a fault in words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ctfed.config import ConfigError
from ctfed.federation.policy import Policy, load_policy
from server.commands import EXAMPLES

DEFAULT = EXAMPLES / "policies" / "default.yaml"


def write(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text)
    return path


def test_the_example_file_holds_every_key_at_its_default() -> None:
    assert load_policy(DEFAULT) == Policy()
    assert list(yaml.safe_load(DEFAULT.read_text())) == list(Policy.model_fields)


def test_what_is_left_out_takes_the_default(tmp_path: Path) -> None:
    found = load_policy(write(tmp_path, "ctfed_policy: 1\nmin_patients: 20\nexceptions: [fine_evaluation_tables]\n"))
    assert found == Policy(min_patients=20, exceptions=("fine_evaluation_tables",))


@pytest.mark.parametrize("given", [None, 3])
def test_runs_differ_by_min_difference_or_by_min_patients(given: int | None) -> None:
    assert Policy(min_patients=12, min_difference=given).difference == (given or 12)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("min_sites: 2", "min_sites: found 2, expected a whole number >= 3"),
        ("min_cells: 5", "min_cells: found an unknown key, expected"),
        ("min_patients: 10.0", "min_patients: found 10.0, expected a whole number >= 1"),
        ("parameters_per_patient: 1.5", "parameters_per_patient: found 1.5, expected a number > 0 and <= 1"),
        ("max_points: 1", "max_points: found 1, expected a whole number >= 2"),
        (
            "exceptions: [fine_tables]",
            "exceptions[0]: found 'fine_tables', expected a list of fine_evaluation_tables / ",
        ),
        ("exceptions: all", "exceptions: found 'all', expected a list of fine_evaluation_tables / "),
        (
            "exceptions: [reference_batch, reference_batch]",
            "exceptions[1]: found 'reference_batch' for the second time, expected each exception once",
        ),
        ("ctfed_site: 1", "ctfed_site: found an unknown key"),
    ],
)
def test_a_fault_is_one_sentence_with_its_line(tmp_path: Path, line: str, sentence: str) -> None:
    path = write(tmp_path, f"ctfed_policy: 1\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        load_policy(path)
    (fault,) = caught.value.faults
    assert fault.startswith(f"{path}, line 2: {sentence}")


def test_a_policy_says_its_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a mapping that begins with 'ctfed_policy: 1'"):
        load_policy(write(tmp_path, "min_sites: 3\n"))
