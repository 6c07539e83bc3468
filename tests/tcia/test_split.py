"""Virtual centres: by where scans come from, or by a seeded draw."""

from __future__ import annotations

import pandas as pd
import pytest

from ctfed.federation.errors import CtfedError
from ctfed.tcia.split import Rule, assign, slug

PATIENTS = pd.DataFrame(
    {
        "patient": [f"P{n:02d}" for n in range(30)],
        "manufacturer": ["SIEMENS"] * 14 + ["GE MEDICAL SYSTEMS"] * 10 + ["Philips"] * 3 + [""] * 3,
        "kernel": ["B30f", "B70f"] * 7 + ["STANDARD"] * 16,
    }
)


def test_a_level_is_a_centre_and_small_ones_and_unknown_ones_are_merged() -> None:
    found = assign(PATIENTS, Rule(("manufacturer",), minimum=10))
    assert found.value_counts().to_dict() == {"siemens": 14, "ge-medical-systems": 10, "other-centres": 6}
    assert set(found[PATIENTS["manufacturer"].isin(["", "Philips"])]) == {"other-centres"}


def test_two_columns_cut_finer_than_one() -> None:
    found = assign(PATIENTS, Rule(("manufacturer", "kernel"), minimum=7))
    assert found.value_counts().to_dict() == {
        "ge-medical-systems-standard": 10,
        "siemens-b30f": 7,
        "siemens-b70f": 7,
        "other-centres": 6,
    }


@pytest.mark.parametrize("alpha", [0.05, 1.0, 100.0])
def test_a_draw_deals_out_everyone_and_no_centre_is_below_the_minimum(alpha: float) -> None:
    rule = Rule(("dirichlet",), minimum=3, sites=5, alpha=alpha, seed=4)
    sizes = assign(PATIENTS, rule).value_counts()
    assert len(sizes) == 5
    assert sizes.sum() == 30
    assert sizes.min() >= 3
    assert assign(PATIENTS, rule).tolist() == assign(PATIENTS, rule).tolist()


def test_a_small_alpha_is_less_even_and_another_seed_is_another_draw() -> None:
    many = pd.DataFrame({"patient": range(1000)})
    uneven, even = (
        assign(many, Rule(("dirichlet",), minimum=1, sites=5, alpha=alpha)).value_counts().std() for alpha in (0.2, 50)
    )
    assert uneven > 3 * even
    draws = [assign(many, Rule(("dirichlet",), sites=5, seed=seed)).tolist() for seed in (0, 1)]
    assert draws[0] != draws[1]


def test_what_cannot_be_is_refused_in_words() -> None:
    with pytest.raises(CtfedError, match=r"'manufactrer', expected a column.*'manufacturer'"):
        assign(PATIENTS, Rule(("manufactrer",)))
    with pytest.raises(CtfedError, match="4 centres of at least 10 patients for 30"):
        assign(PATIENTS, Rule(("dirichlet",), minimum=10, sites=4))
    with pytest.raises(CtfedError, match="found dirichlet beside columns"):
        Rule(("dirichlet", "kernel"))


def test_names_of_centres_hold_letters_digits_and_hyphens() -> None:
    assert slug("CMS, Inc.") == "cms-inc"
