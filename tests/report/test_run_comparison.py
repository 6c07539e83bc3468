"""Two runs beside each other: every number is one of the runs', and every difference their difference."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from page_reader import ParsedPage, no_other_script
from test_many_report import made

from ctfed.report.components import Chart, Page, Table
from ctfed.report.page import render_page
from ctfed.report.site_compare import comparison_page
from ctfed.report.site_compare_models import difference_of

Results = dict[str, Any]


def tables(page: Page) -> dict[str, Table]:
    blocks = [block for section in page.sections for block in section.blocks]
    found = [block.data if isinstance(block, Chart) else block for block in blocks]
    return {table.caption: table for table in found if isinstance(table, Table)}


def charts(page: Page, key: str) -> list[Chart]:
    (section,) = (section for section in page.sections if section.key == key)
    return [block for block in section.blocks if isinstance(block, Chart)]


def row_of(table: Table, first: str) -> dict[str, str]:
    (row,) = (row for row in table.rows if row[0] == first)
    return dict(zip((column.name for column in table.columns), row, strict=True))


@pytest.fixture
def other(results: Results) -> Results:
    """The same study with a better C and another AUC."""
    changed = copy.deepcopy(results)
    changed["discrimination"]["c_within"] |= {"value": 0.68, "lower": 0.6, "upper": 0.74}
    changed["discrimination"]["auc"].append({"horizon": 730.0, "auc": 0.7, "lower": 0.6, "upper": 0.8})
    return changed


def changed_many() -> Results:
    """A second run without the model 'lung', another C of 'clinical' and less net benefit."""
    found = made()
    found["models"] = [model for model in found["models"] if model["name"] != "lung"]
    clinical = found["models"][0]
    clinical["c_within"] |= {"value": 0.67, "lower": 0.64, "upper": 0.7}
    clinical["decisions"][0] |= {"benefit": [0.35, 0.32, 0.1], "error": [0.01, 0.02, 0.03]}
    clinical["fit"]["coefficients"][0]["coef_per_sd"] = 0.21
    return found


def test_limits_of_a_difference_hold_whatever_the_estimates_share() -> None:
    rng = np.random.default_rng(5)
    for correlation in (-1.0, -0.5, 0.0, 0.9, 1.0):
        errors = rng.multivariate_normal([0, 0], [[0.04**2, correlation * 0.04 * 0.02], [0, 0.02**2]], 4000, "ignore")
        first, second = 0.6 + errors[:, 0], 0.65 + errors[:, 1]
        reach = 1.96 * 0.04, 1.96 * 0.02
        limits = [
            difference_of((a, a - reach[0], a + reach[0]), (b, b - reach[1], b + reach[1]))
            for a, b in zip(first, second, strict=True)
        ]
        covered = np.mean([low <= 0.05 <= high for _, low, high in limits if low is not None and high is not None])
        assert covered >= 0.945


def test_a_difference_without_an_interval_has_no_limits() -> None:
    assert difference_of((0.6, None, None), (0.65, 0.6, 0.7)) == (pytest.approx(0.05), None, None)
    assert difference_of((None, None, None), (0.65, 0.6, 0.7)) == (None, None, None)


def test_one_model_each(results: Results, other: Results) -> None:
    page = comparison_page(("old", results), ("new", other))
    row = row_of(tables(page)["C within sites"], "the model")
    assert row["old (95 % CI)"] == "0.632 (0.554 to 0.710)"
    assert row["new (95 % CI)"] == "0.680 (0.600 to 0.740)"
    assert row["Difference"] == "0.048"
    assert row["widest limits"] == "−0.110 to 0.186"  # 0.600 - 0.710, 0.740 - 0.554
    assert row["n (events) in test, old"] == "68 (50)"
    late = row_of(tables(page)["AUC at 730 days"], "the model")
    assert (late["old (95 % CI)"], late["new (95 % CI)"], late["Difference"]) == ("–", "0.700 (0.600 to 0.800)", "–")
    html = render_page(page)
    assert "Neither run holds net benefit" in html
    assert "Neither run compares its models" in html
    assert no_other_script(html)


def test_a_run_beside_itself_differs_in_nothing(results: Results) -> None:
    page = comparison_page(("one", results), ("two", copy.deepcopy(results)))
    table = tables(page)["C within sites"]
    assert [row[3] for row in table.rows] == ["0.000"]
    assert "The same study" in render_page(page)


def test_many_models_stand_in_a_table_by_model() -> None:
    page = comparison_page(("a", made()), ("b", changed_many()))
    table = tables(page)["C within sites"]
    assert [row[0] for row in table.rows] == ["Title clinical", "Title lung", "Title tumour", "Title both"]
    clinical, lung = row_of(table, "Title clinical"), row_of(table, "Title lung")
    assert (clinical["Difference"], clinical["widest limits"]) == ("0.050", "−0.020 to 0.120")
    assert (lung["a (95 % CI)"], lung["b (95 % CI)"], lung["Difference"]) == ("0.550 (0.510 to 0.590)", "–", "–")
    auc = row_of(tables(page)["AUC at 24 months"], "Title tumour")
    assert (auc["a (95 % CI)"], auc["Difference"]) == ("0.760 (0.690 to 0.810)", "0.000")
    assert "3 models of 4 are in both runs" in render_page(page)
    assert "The runs are of different things" in render_page(page)  # of other sizes: one model less


def test_paired_differences_of_each_run_stand_beside_each_other() -> None:
    second = changed_many()
    second["evaluations"][0]["differences"] = [
        row | {"difference": 0.02, "lower": -0.01, "upper": 0.05, "p_holm": 0.4}
        for row in second["evaluations"][0]["differences"]
        if "lung" not in (row["first"], row["second"])
    ]
    table = tables(comparison_page(("a", made()), ("b", second)))["Differences between models of the same run"]
    row = row_of(table, "clinical − tumour")
    assert row["Difference of C, a (95 % CI)"] == "−0.050 (−0.090 to −0.010)"
    assert (row["p (Holm), a"], row["p (Holm), b"]) == ("0.033", "0.400")
    assert row["Difference of C, b (95 % CI)"] == "0.020 (−0.010 to 0.050)"
    assert not any("lung" in row[0] for row in table.rows)
    assert table.note.startswith("3 more pairs")


def test_net_benefit_at_every_threshold_of_both() -> None:
    page = comparison_page(("a", made()), ("b", changed_many()))
    table = tables(page)["Net benefit of Title clinical, at 24 months"]
    assert [row[0] for row in table.rows] == ["0.25", "0.50", "0.75"]
    row = row_of(table, "0.25")
    assert (row["a"], row["b"], row["Difference"]) == ("0.400", "0.350", "−0.050")
    assert row["widest limits"] == "−0.128 to 0.028"  # -0.05 -+ 1.96 (0.03 + 0.01)
    assert row["treat everybody, a"] == "0.380"
    drawn = charts(page, "benefit")
    assert [chart.data.caption for chart in drawn] == [
        f"Net benefit of Title {name}, at 24 months" for name in ("clinical", "tumour", "both")
    ]
    assert "a: threshold: the risk from which one would treat 0.25, net benefit 0.4" in drawn[0].svg


def test_coefficients_of_models_in_both_runs() -> None:
    table = tables(comparison_page(("a", made()), ("b", changed_many())))["Coefficients per standard deviation"]
    assert table.rows[0] == ("Title clinical", "Age", "0.310", "0.210", "−0.100")
    assert not any("lung" in row[0] for row in table.rows)


def test_one_model_beside_many(results: Results) -> None:
    page = comparison_page(("one", results), ("many", made()))
    table = tables(page)["C within sites"]
    assert row_of(table, "the model")["many (95 % CI)"] == "–"
    assert row_of(table, "Title both")["one (95 % CI)"] == "–"
    assert "No model with coefficients is in both runs" in ParsedPage(render_page(page)).text
    assert "One measures time in days, the other in months" in render_page(page)
    benefit = tables(page)["Net benefit of Title both, at 24"]
    assert row_of(benefit, "0.50")["one"] == "–"
