"""The clinical tables of the phantom centres, each in a dialect of its own, with the dictionaries that read them.

Three dialects take turns: dates with commas between columns; French names, day-first dates, semicolons and decimal
commas; Italian names and days since the scan. Every table has a column that says SYNTHETIC.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ctfed.phantom.patients import PhantomPatient

NOTICE = "SYNTHETIC"
# As in site_config/dictionary/pixels_to_prognosis.yaml, but written with the data, which may travel without it.
VARIABLES: dict[str, Any] = {
    "age": {"type": "continuous", "unit": "years", "range": [18, 110], "impute": "median", "label": "Age"},
    "female": {
        "type": "binary",
        "range": [0, 1],
        "levels": {"0": "male", "1": "female"},
        "impute": "mode",
        "label": "Female sex",
    },
    "smoking": {
        "type": "ordinal",
        "range": [0, 2],
        "levels": {"0": "non-smoker", "1": "ex-smoker", "2": "smoker"},
        "impute": "mode",
        "label": "Smoking status",
    },
    "stage": {
        "type": "ordinal",
        "range": [1, 4],
        "levels": {"1": "I", "2": "II", "3": "III", "4": "IV"},
        "impute": "mode",
        "missing_indicator": True,
        "label": "Clinical stage group",
    },
    "ecog": {
        "type": "ordinal",
        "range": [0, 4],
        "levels": {
            "0": "fully active",
            "1": "restricted",
            "2": "in bed less than half the day",
            "3": "in bed more than half",
            "4": "bedridden",
        },
        "impute": "mode",
        "missing_indicator": True,
        "label": "ECOG performance status",
    },
}


@dataclass(frozen=True)
class Dialect:
    """How one centre writes its table.

    Attributes:
        separator: between columns.
        row: a patient's cells by column, in the order of the columns.
        source: the section ``source`` of the dictionary that reads it.
    """

    separator: str
    row: Callable[[PhantomPatient], Mapping[str, str]]
    source: Mapping[str, Any]


def clinical_csv(patients: list[PhantomPatient], dialect: Dialect) -> str:
    """The table of one centre as CSV."""
    rows = [{**dialect.row(patient), "note": NOTICE} for patient in patients]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=dialect.separator, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def dictionary(site: str, dialect: Dialect) -> dict[str, Any]:
    """The content of a centre's dictionary file."""
    return {
        "ctfed_dictionary": 1,
        "name": site,
        "title": f"{NOTICE} clinical table of {site}",
        "variables": VARIABLES,
        "source": dict(dialect.source),
    }


def _code(value: int | None, codes: tuple[str, ...]) -> str:
    return "" if value is None else codes[value]


def _english(patient: PhantomPatient) -> dict[str, str]:
    return {
        "patient_id": patient.identifier,
        "age_years": str(patient.age),
        "sex": "F" if patient.female else "M",
        "stage_group": ("I", "II", "III", "IV")[patient.stage - 1],
        "smoking_status": _code(patient.smoking, ("never", "former", "current")),
        "ecog_ps": "" if patient.ecog is None else str(patient.ecog),
        "date_ct": patient.scanned.isoformat(),
        "date_last_contact": patient.last_seen.isoformat(),
        "vital_status": "dead" if patient.event else "alive",
    }


def _french(patient: PhantomPatient) -> dict[str, str]:
    day = "%d/%m/%Y"
    return {
        "identifiant": patient.identifier,
        "âge": f"{patient.age},0",
        "sexe": "2" if patient.female else "1",
        "stade": str(patient.stage),
        "tabac": _code(patient.smoking, ("non-fumeur", "ex-fumeur", "fumeur")) or "inconnu",
        "oms": "" if patient.ecog is None else str(patient.ecog),
        "date_scanner": patient.scanned.strftime(day),
        "date_dernieres_nouvelles": "" if patient.event else patient.last_seen.strftime(day),
        "date_deces": patient.last_seen.strftime(day) if patient.event else "",
    }


def _italian(patient: PhantomPatient) -> dict[str, str]:
    return {
        "codice": patient.identifier,
        "eta": str(patient.age),
        "genere": "femmina" if patient.female else "maschio",
        "stadio": ("IA", "IIB", "IIIA", "IVB")[patient.stage - 1],
        "fumo": _code(patient.smoking, ("mai", "ex", "attuale")),
        "ecog": "ND" if patient.ecog is None else str(patient.ecog),
        "giorni_follow_up": str(patient.days),
        "stato": "deceduto" if patient.event else "vivo",
    }


DIALECTS = (
    Dialect(
        ",",
        _english,
        {
            "kind": "csv",
            "patient": "patient_id",
            "follow_up": {
                "start": {"column": "date_ct", "format": "%Y-%m-%d"},
                "last_contact": {"column": "date_last_contact", "format": "%Y-%m-%d"},
                "event": {"column": "vital_status", "codes": {"alive": 0, "dead": 1}},
            },
            "columns": {
                "age": "age_years",
                "female": {"column": "sex", "codes": {"M": 0, "F": 1}},
                "smoking": {"column": "smoking_status", "codes": {"never": 0, "former": 1, "current": 2}},
                "stage": {"column": "stage_group", "codes": {"I": 1, "II": 2, "III": 3, "IV": 4}},
                "ecog": "ecog_ps",
            },
        },
    ),
    Dialect(
        ";",
        _french,
        {
            "kind": "csv",
            "patient": "identifiant",
            "separator": ";",
            "decimal": ",",
            "missing": ["inconnu"],
            "follow_up": {
                "start": {"column": "date_scanner", "format": "%d/%m/%Y"},
                "last_contact": {"column": "date_dernieres_nouvelles", "format": "%d/%m/%Y"},
                "death": {"column": "date_deces", "format": "%d/%m/%Y"},
            },
            "columns": {
                "age": "âge",
                "female": {"column": "sexe", "codes": {"1": 0, "2": 1}},
                "smoking": {"column": "tabac", "codes": {"non-fumeur": 0, "ex-fumeur": 1, "fumeur": 2}},
                "stage": "stade",
                "ecog": "oms",
            },
        },
    ),
    Dialect(
        ",",
        _italian,
        {
            "kind": "csv",
            "patient": "codice",
            "missing": ["ND"],
            "follow_up": {
                "time": {"column": "giorni_follow_up", "unit": "days"},
                "event": {"column": "stato", "codes": {"vivo": 0, "deceduto": 1}},
            },
            "columns": {
                "age": "eta",
                "female": {"column": "genere", "codes": {"maschio": 0, "femmina": 1}},
                "smoking": {"column": "fumo", "codes": {"mai": 0, "ex": 1, "attuale": 2}},
                "stage": {"column": "stadio", "codes": {"IA": 1, "IIB": 2, "IIIA": 3, "IVB": 4}},
                "ecog": "ecog",
            },
        },
    ),
)
