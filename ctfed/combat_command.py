"""``ctfed combat``: harmonize plain CSV files of several sites, on one machine, by the same sums as a federation."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctfed import __version__
from ctfed.federation.errors import CtfedError

if TYPE_CHECKING:
    from ctfed.combat_tables import Roles, Sheets
    from ctfed.federation import Cohort, FloatArray
    from ctfed.federation.pooled import Traffic
    from ctfed.statistics.combat import CombatOptions, Harmonized
    from ctfed.statistics.harmonization_effect import HarmonizationEffect

SUMMARY, TABLE = "combat.json", "combat.txt"
NAMED = 8  # features that the text lists


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    combat = commands.add_parser(
        "combat",
        help="harmonize CSV files of several sites or scanners with ComBat",
        description="Take the differences between scanners or sites out of the features of plain CSV files, by the "
        "same sums over patients as in a federation. Each file is a site.",
    )
    combat.add_argument("tables", type=Path, nargs="+", metavar="CSV", help="a site's table, a patient in each row")
    combat.add_argument("--out", type=Path, required=True, help="folder for the harmonized tables and the summary")
    _add_columns(combat)
    _add_options(combat)
    combat.set_defaults(command=_combat)


def _add_columns(combat: argparse.ArgumentParser) -> None:
    names = combat.add_argument_group("columns", "names, with commas between them")
    names.add_argument("--batch", default="", metavar="COLUMN", help="label of the scanner (default: each file is one)")
    names.add_argument("--covariates", default="", metavar="NAMES", help="whose effect is kept, such as age,sex")
    names.add_argument("--categorical", default="", metavar="NAMES", help="covariates that are categories in numbers")
    names.add_argument("--outcome", default="", metavar="NAMES", help="stay as they are and may not be covariates")
    names.add_argument("--leave", default="", metavar="NAMES", help="further columns that stay as they are")
    names.add_argument("--features", default="", metavar="NAMES", help="or patterns (default: all other numbers)")


def _add_options(combat: argparse.ArgumentParser) -> None:
    options = combat.add_argument_group("ComBat")
    options.add_argument("--reference", default="", metavar="LABEL", help="batch that stays as it is")
    options.add_argument(
        "--prior", choices=("parametric", "nonparametric", "none"), default="parametric", help="default: parametric"
    )
    options.add_argument("--mean-only", action="store_true", help="adjust the location alone")
    options.add_argument("--minimum", type=int, default=10, help="fewest rows of a batch in the fit (default: 10)")
    options.add_argument(
        "--unseen", choices=("identity", "local"), default="identity", help="what happens to smaller batches"
    )
    options.add_argument(
        "--shared", action="store_true", help="one label is one batch in all files (else one per file)"
    )
    options.add_argument("--fit-on", metavar="COLUMN=VALUE", help="learn on these rows alone, such as split=train")


@dataclass(frozen=True, eq=False)
class _Result:
    sheets: Sheets
    sites: list[Cohort]
    harmonized: Harmonized
    effect: HarmonizationEffect | None
    batches: list[dict[str, Any]]
    traffic: Traffic


def _combat(options: argparse.Namespace) -> int:
    from ctfed.combat_tables import read_sheets, write_sheets
    from ctfed.statistics.combat.moments import MAX_MINIMUM

    if not 2 <= options.minimum <= MAX_MINIMUM:
        raise CtfedError(f"--minimum: found {options.minimum}, expected 2 to {MAX_MINIMUM}")
    roles = _roles(options)
    sheets = read_sheets(options.tables, roles)
    result, values = _harmonize(sheets, roles, options)
    written = write_sheets(sheets, values, options.out)
    lines = _table(result)
    (options.out / TABLE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    summary = _summary(result, roles, written)
    (options.out / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print("\n".join(lines))
    print(f"written: {', '.join(str(path) for path in (*written, options.out / SUMMARY, options.out / TABLE))}")
    return 0


def _roles(options: argparse.Namespace) -> Roles:
    from ctfed.combat_tables import Roles

    listed = {
        name: tuple(part.strip() for part in getattr(options, name).split(",") if part.strip())
        for name in ("covariates", "categorical", "outcome", "leave", "features")
    }
    column = (options.fit_on or "").partition("=")[0].strip()
    if column and not any(column in names for names in listed.values()) and column != options.batch:
        listed["leave"] += (column,)
    roles = Roles(batch=options.batch, **listed)
    both = sorted(set(roles.covariates) & set(roles.outcome))
    if both:
        raise CtfedError(
            f"--covariates: {both[0]!r} carries the outcome, and harmonizing by it would leak the outcome into the "
            "features; leave it out"
        )
    twice = sorted({name for name in roles.named if roles.named.count(name) > 1})
    if twice:
        raise CtfedError(f"column {twice[0]!r} is named for two roles, expected one")
    return roles


def _harmonize(sheets: Sheets, roles: Roles, options: argparse.Namespace) -> tuple[_Result, FloatArray]:
    import numpy as np

    from ctfed.federation import run_pooled
    from ctfed.federation.pooled import Traffic
    from ctfed.federation.view import Rows
    from ctfed.statistics.combat import CombatOptions, Covariate, combat
    from ctfed.statistics.harmonization_effect import harmonization_effect

    groups = sheets.batch if options.shared else np.array([sheet.site for sheet in sheets.sheets])[sheets.place]
    sites, rows = _sites(sheets, roles, groups, options.fit_on)
    chosen = CombatOptions(options.prior, options.mean_only, options.reference, options.minimum, options.unseen)
    _check_batches(sites, chosen)
    covariates = [
        Covariate(name, tuple(float(level) for level in range(len(levels))))
        for name, levels in zip(roles.covariates, sheets.levels, strict=True)
    ]
    traffic = Traffic()
    found = run_pooled(combat(_view(sites), sheets.features, covariates, chosen, outcome=roles.outcome), sites, traffic)
    batches = _batches(sites, found)
    effect = None
    if sum(batch["rows_of_fit"] >= chosen.minimum for batch in batches) >= 2:
        effect = run_pooled(harmonization_effect(found), sites)
    values = np.empty_like(sheets.values)
    for site, place in zip(sites, rows, strict=True):
        values[place] = found.view.on(Rows("all")).table(site).values[:, : len(sheets.features)]
    return _Result(sheets, sites, found, effect, batches, traffic), values


def _sites(sheets: Sheets, roles: Roles, groups: Any, fit_on: str | None) -> tuple[list[Cohort], list[Any]]:
    """The cohorts of the groups, and which rows each holds. Follow-up is of no matter here."""
    import numpy as np

    from ctfed.combat_tables import rows_where
    from ctfed.federation import Cohort

    split = np.full(groups.size, "train")
    if fit_on:
        split = np.where(rows_where(sheets, fit_on), "train", "test")
    columns = dict(zip(sheets.features, sheets.values.T, strict=True))
    columns |= dict(zip(roles.covariates, sheets.covariates.T, strict=True))
    whole = Cohort.of("all", columns, np.ones(groups.size), np.zeros(groups.size), batch=sheets.batch, split=split)
    rows = [np.flatnonzero(groups == label) for label in dict.fromkeys(groups.tolist())]
    return [whole.subset(np.isin(np.arange(groups.size), place), str(groups[place[0]])) for place in rows], rows


def _view(sites: Sequence[Cohort]) -> Any:
    """All columns, of the magnitude that they have."""
    import numpy as np

    from ctfed.federation import Feature, View, pool

    def exponent(values: FloatArray) -> int:
        return int(np.clip(np.frexp(np.abs(values).max())[1], -120, 120))

    return View(tuple(Feature(name, exponent(values)) for name, values in pool(sites).columns.items()))


def _check_batches(sites: Sequence[Cohort], options: CombatOptions) -> None:
    labels = {(site.site, label) for site in sites for label in site.batch.tolist()}
    if len(labels) < 2:
        raise CtfedError(f"found a single batch {next(iter(labels))[1]!r}, expected two or more to harmonize")
    if options.reference and options.reference not in {label for _, label in labels}:
        known = ", ".join(sorted({label for _, label in labels}))
        raise CtfedError(f"--reference: found no batch {options.reference!r}, expected one of {known}")


def _batches(sites: Sequence[Cohort], found: Harmonized) -> list[dict[str, Any]]:
    """What happened to each batch, in the order of the files."""
    import numpy as np

    from ctfed.federation.view import Rows

    listed = []
    for site in sites:
        everybody = found.before.on(Rows("all")).table(site)
        effects = {effect.label: effect for effect in found.transform.effects(everybody, found.before.table(site))}
        for label in dict.fromkeys(site.batch.tolist()):
            own = site.batch == label
            batch: dict[str, Any] = {
                "site": site.site,
                "batch": label,
                "rows": int(own.sum()),
                "rows_of_fit": int((own & (site.split == "train")).sum()),
                "treatment": "reference" if label == found.transform.reference else "unchanged",
            }
            if label in effects:
                shrunken = effects[label].shrunken
                batch["treatment"] = "harmonized" if effects[label].fitted else "harmonized by its own rows at hand"
                batch["gamma_star_rms"] = float(np.sqrt((shrunken.gamma_star**2).mean()))
                batch["delta_star_range"] = [float(shrunken.delta_star.min()), float(shrunken.delta_star.max())]
            listed.append(batch)
    return listed


def _summary(result: _Result, roles: Roles, written: Sequence[Path]) -> dict[str, Any]:
    step, effect = result.harmonized.transform, result.effect
    names = step.names
    return {
        "ctfed": __version__,
        "files": [
            {"read": str(sheet.path), "written": str(path), "rows": len(sheet.table.rows)}
            for sheet, path in zip(result.sheets.sheets, written, strict=True)
        ],
        "columns": {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(roles).items()},
        "levels": {
            name: list(levels) for name, levels in zip(roles.covariates, result.sheets.levels, strict=True) if levels
        },
        "options": {name: getattr(step, name) for name in ("prior", "mean_only", "reference", "minimum", "unseen")},
        "fit": {"rows": result.harmonized.rows, "batches": result.harmonized.batches},
        "batches": result.batches,
        "features": len(names),
        "not_harmonized": list(step.degenerate),
        "variance_explained_by_batch": None
        if effect is None
        else {
            "chance": effect.before.chance,
            "before": dict(zip(names, effect.before.share.tolist(), strict=True)),
            "after": dict(zip(names, effect.after.share.tolist(), strict=True)),
            "worse": list(effect.worse),
        },
        "traffic": {"rounds": result.traffic.rounds, "bytes_up_per_site": result.traffic.bytes_up},
        "notes": list(result.sheets.notes),
        "warnings": list(result.harmonized.warnings),
    }


def _table(result: _Result) -> list[str]:
    """The summary for a person."""
    found = result.harmonized
    lines = [
        f"{found.rows} rows in {found.batches} batches took part in the fit; {len(found.transform.names)} features; "
        f"prior {found.transform.prior}; {result.traffic.rounds} round{'s' * (result.traffic.rounds > 1)} of sums",
        "",
        f"{'site':20} {'batch':20} {'rows':>6} {'of fit':>7} {'gamma*':>7}  delta*",
    ]
    for batch in result.batches:
        start = f"{batch['site']:20.20} {batch['batch']:20.20} {batch['rows']:6} {batch['rows_of_fit']:7}"
        if "gamma_star_rms" in batch:
            low, high = batch["delta_star_range"]
            lines.append(f"{start} {batch['gamma_star_rms']:7.3f}  {low:.2f} to {high:.2f}")
        else:
            lines.append(f"{start} {batch['treatment']:>7}")
    lines.append("gamma* is the root mean square over features, in standard deviations; delta* is a ratio of variances")
    lines += _effect_lines(result.effect)
    if found.transform.degenerate:
        lines += ["", f"not harmonized: {_listed(found.transform.degenerate)}"]
    lines += [f"note: {line}" for line in result.sheets.notes]
    return lines + [f"look at: {line}" for line in found.warnings]


def _effect_lines(effect: HarmonizationEffect | None) -> list[str]:
    if effect is None:
        return []
    import numpy as np

    lines = ["", f"{'variance explained by the batch':34} {'median':>8} {'90 %':>8} {'largest':>8}"]
    for name, share in (("before", effect.before.share), ("after", effect.after.share)):
        middle, high = np.quantile(share, (0.5, 0.9))
        lines.append(f"{name:34} {middle:8.4f} {high:8.4f} {share.max():8.4f}")
    lines.append(f"{'expected by chance':34} {effect.before.chance:8.4f}")
    if effect.worse:
        lines.append(f"more than before in {len(effect.worse)} features: {_listed(effect.worse)}")
    return lines


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
