"""Published clinical tables, each in its own columns and codes, as one table of the study's variables.

Beside the table stands a dictionary that reads it back, so that `ctfed prepare` takes the table as any centre's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import ctfed
from ctfed.cohort.clinical_sources import Dictionary, load_dictionary, read_clinical
from ctfed.cohort.table import DataError
from ctfed.config import ConfigError, did_you_mean, listed
from ctfed.federation.errors import CtfedError
from ctfed.preparation.atomic import write_text
from ctfed.tcia.index import collection_id

if TYPE_CHECKING:
    import pandas as pd

    from ctfed.study import Variable

CLINICAL, DICTIONARY = "clinical.csv", "dictionary.yaml"
PATIENT, TIME, EVENT, TABLE = "patient", "time", "event", "table"
SHIPPED = Path(ctfed.__file__).resolve().parent.parent / "site_config" / "dictionary"


@dataclass(frozen=True)
class Joined:
    """Columns of a further CSV file that stay as they are, such as published features or the scanner's name.

    Attributes:
        csv: the file, a row per patient.
        patient: its column with the identifier.
        columns: names or patterns ('original_*'); none for all.
    """

    csv: Path
    patient: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Mapped:
    """What the tables hold together.

    Attributes:
        frame: columns patient, time (days), event (0 or 1), table (the dictionary's name), the variables that at least
            one table has, and what was joined. One row per patient.
        variables: their entries of the data dictionary, by name.
        set_aside: number of rows without a place in it, by table and rule.
    """

    frame: pd.DataFrame
    variables: Mapping[str, Variable]
    set_aside: Mapping[tuple[str, str], int]

    def write(self, folder: Path) -> None:
        """``clinical.csv`` and ``dictionary.yaml``, which reads it."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / CLINICAL, self.frame.to_csv(index=False, lineterminator="\n"))
        write_text(folder / DICTIONARY, yaml.safe_dump(self.dictionary(), sort_keys=False, allow_unicode=True))

    def dictionary(self) -> dict[str, Any]:
        """The content of a dictionary for the table: every variable from the column of its name."""
        entries = {
            name: variable.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
            for name, variable in self.variables.items()
        }
        follow_up = {
            "time": {"column": TIME, "unit": "days"},
            "event": {"column": EVENT, "codes": {"0": 0, "1": 1}},
        }
        source = {
            "kind": "csv",
            "patient": PATIENT,
            "follow_up": follow_up,
            "columns": {name: name for name in entries},
        }
        return {"ctfed_dictionary": 1, "name": "public_tables", "variables": entries, "source": source}


def find_dictionary(name: str) -> Path:
    """A path, or the name of a dictionary that ships with ctfed, such as nsclc_radiomics.

    Raises:
        ConfigError: when it is neither.
    """
    own, shipped = Path(name), SHIPPED / f"{collection_id(name)}.yaml"
    if own.suffix in (".yaml", ".yml") and own.is_file():
        return own
    if shipped.is_file():
        return shipped
    known = [path.stem for path in sorted(SHIPPED.glob("*.yaml"))]
    wanted = f"a dictionary's path, or one of {', '.join(known)}{did_you_mean(name, known)}"
    raise ConfigError(f"found no dictionary {name!r}, expected {wanted}")


def map_tables(tables: Sequence[tuple[Path, Path]], joins: Sequence[Joined] = ()) -> Mapped:
    """Read published tables by their dictionaries, one below the other.

    Args:
        tables: (dictionary, table) each.
        joins: columns to add.

    Raises:
        ConfigError: when two dictionaries define a variable differently.
        DataError: when a table cannot be used, two have a patient of the same name, or a join has no such column.
    """
    import pandas as pd

    variables: dict[str, Variable] = {}
    frames, aside = [], dict[tuple[str, str], int]()
    for path, table in tables:
        dictionary = load_dictionary(path)
        read = read_clinical(table, dictionary, "days")
        _take_over(variables, dictionary)
        for entry in read.set_aside:
            key = (dictionary.name, entry.rule)
            aside[key] = aside.get(key, 0) + 1
        frame = read.frame[[TIME, EVENT, *dictionary.required_source().columns]].reset_index()
        frame.insert(3, TABLE, dictionary.name)
        frames.append(frame)
    whole = pd.concat(frames, ignore_index=True)
    twice = whole[PATIENT][whole[PATIENT].duplicated()]
    if len(twice):
        raise DataError(f"found patient {twice.iloc[0]!r} in two tables, expected each in one")
    whole = whole[[PATIENT, TIME, EVENT, TABLE, *variables]]
    for join in joins:
        whole = _joined(whole, join)
    return Mapped(whole, variables, aside)


def _take_over(variables: dict[str, Variable], dictionary: Dictionary) -> None:
    """The variables that this table has; the first definition stays, and what values may be must be the same."""
    for name in dictionary.variables:
        if name not in dictionary.required_source().columns:
            continue
        own = dictionary.variables[name]
        first = variables.setdefault(name, own)
        if (own.type, own.unit, own.range) != (first.type, first.unit, first.range):
            where = f"{dictionary.origin}: variables.{name}"
            raise ConfigError(f"{where}: found another type, unit or range than an earlier dictionary's, expected them")


def _joined(frame: pd.DataFrame, join: Joined) -> pd.DataFrame:
    import pandas as pd

    try:
        other = pd.read_csv(join.csv, dtype={join.patient: str}, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{join.csv}: found no table that can be read ({type(error).__name__}), expected CSV"
        ) from error
    if join.patient not in other:
        hint = did_you_mean(join.patient, other.columns)
        raise DataError(f"{join.csv}: column {join.patient!r}: found no such column, expected the patients{hint}")
    if other[join.patient].duplicated().any():
        raise DataError(f"{join.csv}: column {join.patient!r}: found a patient twice, expected one row for each")
    wanted = join.columns or ("*",)
    names = [c for c in other if c != join.patient and any(fnmatchcase(str(c), pattern) for pattern in wanted)]
    if not names:
        raise DataError(f"{join.csv}: found no column like {listed(wanted)}, expected at least one")
    if both := [name for name in names if name in frame]:
        raise DataError(f"{join.csv}: column {both[0]!r}: found it in the clinical table, too, expected other names")
    found = frame.merge(other[[join.patient, *names]], how="left", left_on=PATIENT, right_on=join.patient)
    return found.drop(columns=[] if join.patient == PATIENT else [join.patient])


def read_mapped(path: Path) -> pd.DataFrame:
    """A table that ``Mapped.write`` wrote, or any CSV file with columns patient, time (days) and event (0 or 1).

    Raises:
        CtfedError: when it cannot be read or lacks one of them.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype={PATIENT: str})
    except (OSError, ValueError) as error:
        raise CtfedError(f"{path}: found no table that can be read ({type(error).__name__}), expected CSV") from error
    for name in (PATIENT, TIME, EVENT):
        if name not in frame:
            raise CtfedError(f"{path}: column {name!r}: found no such column, expected it (`ctfed tcia clinical`)")
    return frame
