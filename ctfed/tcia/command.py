"""``ctfed tcia list | plan | download | clinical | partition``: public collections as virtual centres."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ctfed.federation.errors import CtfedError

WANTED = ("CT", "RTSTRUCT", "SEG")  # a collection may hold slides of pathology, too, and they are large

if TYPE_CHECKING:
    import pandas as pd

    from ctfed.tcia.split import Rule

Actions = argparse._SubParsersAction  # the type of what add_subparsers returns; argparse gives it no public name


def register(commands: Actions[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    tcia = commands.add_parser(
        "tcia",
        help="public lung CT collections: choose, download, and cut into virtual centres",
        description="Public collections of the Cancer Imaging Archive, by the index of the NCI Imaging Data Commons "
        "that is installed with ctfed[tcia]: choosing needs no network.",
    )
    actions = tcia.add_subparsers(title="actions", metavar="ACTION", required=True)
    _register_list(actions)
    _register_plan(actions)
    _register_download(actions)
    _register_clinical(actions)
    _register_partition(actions)


def _register_list(actions: Actions[argparse.ArgumentParser]) -> None:
    found = actions.add_parser("list", help="the collections of the chest in the index")
    found.add_argument("--all", action="store_true", help="also those without clinical data in the index's words")
    found.set_defaults(command=_list)


def _register_plan(actions: Actions[argparse.ArgumentParser]) -> None:
    plan = actions.add_parser("plan", help="patients, series, scanners and gigabytes, by collection and virtual centre")
    _add_collections(plan)
    plan.add_argument("--folder", type=Path, action="append", default=[], help="a folder already downloaded, instead")
    plan.add_argument("--clinical", type=Path, help="clinical.csv of `ctfed tcia clinical`: events of each centre")
    plan.add_argument("--fetch-kernels", action="store_true", help="fetch IDC's table of kernels first, once")
    _add_rule(plan)
    plan.set_defaults(command=_plan)


def _register_download(actions: Actions[argparse.ArgumentParser]) -> None:
    fetch = actions.add_parser(
        "download",
        help="fetch collections from IDC's public buckets; the same command goes on where it was",
        description="Fetch CT, RTSTRUCT and SEG. Each file is compared with the bucket's size and MD5.",
    )
    _add_collections(fetch)
    fetch.add_argument("--out", type=Path, required=True, help="folder for the scans")
    fetch.add_argument("--patients", nargs="+", default=[], metavar="ID", help="these patients alone")
    fetch.add_argument("--limit", type=int, help="at most so many patients of each collection")
    fetch.add_argument("--modalities", nargs="+", default=list(WANTED), help="default: CT, RTSTRUCT and SEG")
    fetch.add_argument("--endpoint", default="https://s3.amazonaws.com", help="the S3 service, such as a mirror's")
    fetch.add_argument("--dry-run", action="store_true", help="say what would be fetched")
    fetch.set_defaults(command=_download)


def _register_clinical(actions: Actions[argparse.ArgumentParser]) -> None:
    clinical = actions.add_parser("clinical", help="map published clinical tables to one table of variables")
    clinical.add_argument(
        "--table",
        nargs=2,
        action="append",
        required=True,
        metavar=("DICTIONARY", "CSV"),
        help="a dictionary (a path, or one that ships: nsclc_radiomics, nsclc_radiogenomics) and the table it reads",
    )
    clinical.add_argument(
        "--join",
        nargs="+",
        action="append",
        default=[],
        metavar="CSV ID [COLUMNS]",
        help="add columns of a further table by its column ID, such as published features: names or patterns",
    )
    clinical.add_argument("--out", type=Path, required=True, help="folder for clinical.csv and dictionary.yaml")
    clinical.set_defaults(command=_clinical)


def _register_partition(actions: Actions[argparse.ArgumentParser]) -> None:
    cut = actions.add_parser(
        "partition",
        help="cut downloaded scans, or a table, into virtual centres",
        description="With --folder: a folder per centre with links to its scans and a site file. Without: the "
        "clinical table with a column 'centre' and one site file; the scanners come from the table or the index.",
    )
    cut.add_argument("--folder", type=Path, action="append", default=[], help="downloaded scans (NBIA or IDC layout)")
    cut.add_argument("--prepared", type=Path, help="centres of an earlier partition that were prepared: cut them anew")
    cut.add_argument("--clinical", type=Path, help="clinical.csv of `ctfed tcia clinical`")
    _add_collections(cut)
    _add_rule(cut)
    cut.add_argument("--extraction", type=Path, help="settings of the extraction (default: the given tumours)")
    cut.add_argument("--out", type=Path, required=True, help="folder for the centres, absent or empty")
    cut.set_defaults(command=_partition)


def _add_collections(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--collection", action="append", default=[], metavar="NAME", help="of the index, such as NSCLC-Radiomics"
    )
    parser.add_argument("--kernels", type=Path, metavar="PARQUET", help="ct_index.parquet of IDC: kernels per series")


def _add_rule(parser: argparse.ArgumentParser) -> None:
    rule = parser.add_argument_group("virtual centres")
    rule.add_argument(
        "--by",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="collection, manufacturer, model, kernel, institution, a column of the table, or dirichlet",
    )
    rule.add_argument("--minimum", type=int, default=10, help="smaller centres are merged (default: 10)")
    rule.add_argument("--remainder", default="other-centres", help="the name of what is merged")
    rule.add_argument("--sites", type=int, default=5, help="dirichlet: number of centres (default: 5)")
    rule.add_argument("--alpha", type=float, default=1.0, help="dirichlet: small is uneven (default: 1)")
    rule.add_argument("--seed", type=int, default=0, help="of the draw and of the centres' folds (default: 0)")


def _rule(options: argparse.Namespace) -> Rule:
    from ctfed.tcia.split import Rule

    return Rule(tuple(options.by), options.minimum, options.remainder, options.sites, options.alpha, options.seed)


def _list(options: argparse.Namespace) -> int:
    from ctfed.tcia.index import index_version, read_collections, read_series
    from ctfed.tcia.plan import lines_of

    table = read_collections()
    if not options.all:
        table = table[table["supporting"].fillna("").str.contains("Clinical")]
    series = read_series(list(table["collection"]), analyses=True)
    scans = series[series["modality"] == "CT"].groupby("collection")
    sizes = {"patients": scans["patient"].nunique(), "CT series": scans.size()}
    table = table.assign(
        gigabytes=table["collection"].map(scans["megabytes"].sum() / 1e3),
        **{name: table["collection"].map(counts) for name, counts in sizes.items()},
    ).dropna(subset=["patients"])
    table = table.astype({"patients": int, "CT series": int})
    cancers = table["cancers"].fillna("").str.slice(0, 40)
    shown = table[["collection", "patients", "CT series", "gigabytes"]].assign(cancers=cancers)
    print(f"index {index_version()} of the NCI Imaging Data Commons: collections of the chest with CT")
    print(*lines_of(shown), sep="\n")
    return 0


def _plan(options: argparse.Namespace) -> int:
    from ctfed.tcia.centres import summarise
    from ctfed.tcia.clinical import read_mapped
    from ctfed.tcia.index import fetch_kernels
    from ctfed.tcia.plan import by_collection, levels, lines_of
    from ctfed.tcia.split import CENTRE, assign

    if options.fetch_kernels:
        print(f"kernels: {fetch_kernels()}")
    series, patients = _found(options)
    print(*lines_of(by_collection(series, patients)), sep="\n")
    print(f"{len(patients)} patients with CT, {len(series)} series, {series['megabytes'].sum() / 1e3:.1f} GB")
    print(*levels(patients, ("manufacturer", "model", "kernel", "institution")), sep="\n")
    if (patients["kernel"] == "").all() and not options.folder:
        print(
            "the index has no kernels; IDC's ct_index.parquet has them (--fetch-kernels), and so have downloaded scans"
        )
    if options.by:
        frame = None if options.clinical is None else read_mapped(options.clinical)
        if frame is not None:
            extra = [name for name in frame if name == "patient" or name not in patients]
            patients = patients.merge(frame[extra], on="patient")
        patients[CENTRE] = assign(patients, _rule(options))
        print(f"\nvirtual centres by {', '.join(options.by)}:")
        print(*lines_of(summarise(patients, frame)), sep="\n")
    return 0


def _found(options: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Series and patients, of the folders given or of the index."""
    from ctfed.tcia.index import DEFAULT_COLLECTIONS, read_series
    from ctfed.tcia.patients import patients_of, read_folders

    if options.folder:
        series = read_folders(options.folder)
    else:
        series = read_series(options.collection or DEFAULT_COLLECTIONS, kernels=options.kernels)
    series = series[series["modality"].isin(WANTED)]
    return series, patients_of(series)


def _download(options: argparse.Namespace) -> int:
    from ctfed.tcia.download import download
    from ctfed.tcia.index import read_series

    if not options.collection:
        raise CtfedError("--collection: found nothing, expected a collection; `ctfed tcia list` has their names")
    series = read_series(options.collection)
    series = series[series["modality"].isin([name.upper() for name in options.modalities])]
    if options.patients:
        if unknown := sorted(set(options.patients) - set(series["patient"])):
            raise CtfedError(f"--patients: found {unknown[0]!r}, expected a patient of the collections")
        series = series[series["patient"].isin(options.patients)]
    if options.limit is not None:
        names = series[["collection", "patient"]].drop_duplicates().groupby("collection").head(options.limit)
        series = series[series["patient"].isin(names["patient"])]
    size = series["megabytes"].sum() / 1e3
    licences = ", ".join(sorted(filter(None, series["licence"].unique())))
    print(f"{series['patient'].nunique()} patients, {len(series)} series, {size:.2f} GB; licences: {licences}")
    if options.dry_run:
        return 0
    totals = download(series, options.out, endpoint=options.endpoint)
    print(
        f"{options.out}: {totals.files} files are whole ({totals.with_md5} by MD5, the others by size); "
        f"{totals.fetched} were fetched now ({totals.bytes_fetched / 1e9:.2f} GB)"
    )
    return 0


def _clinical(options: argparse.Namespace) -> int:
    from ctfed.tcia.clinical import CLINICAL, Joined, find_dictionary, map_tables

    joins = []
    for given in options.join:
        if len(given) < 2:
            raise CtfedError("--join: found one word, expected a CSV file, its column of patients, and columns")
        joins.append(Joined(Path(given[0]), given[1], tuple(given[2:])))
    mapped = map_tables([(find_dictionary(name), Path(table)) for name, table in options.table], joins)
    mapped.write(options.out)
    for name, own in mapped.frame.groupby("table"):
        print(f"{name}: {len(own)} patients, {int(own['event'].sum())} events")
    for (name, rule), count in sorted(mapped.set_aside.items()):
        print(f"set aside: {name}: {count} ({rule})")
    print(f"{options.out / CLINICAL}: {len(mapped.frame)} patients, {len(mapped.variables)} variables")
    return 0


def _partition(options: argparse.Namespace) -> int:
    from ctfed.tcia.centres import summarise, write_centres, write_table
    from ctfed.tcia.clinical import SHIPPED
    from ctfed.tcia.plan import lines_of
    from ctfed.tcia.split import CENTRE, assign

    source = _source(options)
    frame = source.frame
    if source.patients.empty:
        raise CtfedError(f"{options.clinical}: found no patient of the scans, expected the same identifiers in both")
    own = [name for name in options.by if name in frame and name not in source.patients]
    patients = source.patients.merge(frame[["patient", *own]], on="patient")
    patients[CENTRE] = assign(patients, _rule(options))
    if source.series is not None:
        extraction = options.extraction or SHIPPED.parent / "extraction" / "given_tumour.yaml"
        write_centres(options.out, patients, source.series, options.clinical, frame, extraction, options.seed)
        after = f"ctfed prepare --site {options.out}\nctfed simulate STUDY --site {options.out}"
    else:
        site = write_table(options.out, patients, frame, options.seed)
        after = f"ctfed simulate STUDY --site {site}"
    print(*lines_of(summarise(patients, frame)), sep="\n")
    print(f"then:\n{after}")
    return 0


class _Source(NamedTuple):
    """What is cut: rows with follow-up, patients with where their scans come from, and series that lie in folders."""

    frame: pd.DataFrame
    patients: pd.DataFrame
    series: pd.DataFrame | None


def _source(options: argparse.Namespace) -> _Source:
    from ctfed.tcia.centres import read_prepared
    from ctfed.tcia.clinical import read_mapped

    if options.prepared is not None:
        if options.clinical is not None or options.folder:
            raise CtfedError("--prepared: found it beside --clinical or --folder, expected it alone")
        return _Source(*read_prepared(options.prepared), None)
    if options.clinical is None:
        raise CtfedError("--clinical: found nothing, expected clinical.csv (or --prepared: centres)")
    frame = read_mapped(options.clinical)
    if not options.folder:
        return _Source(frame, _of_table(options, frame), None)
    series, patients = _found(options)
    both = patients[patients["patient"].isin(frame["patient"])].reset_index(drop=True)
    if len(both) < len(patients):
        print(f"left out: {len(patients) - len(both)} patients without follow-up in {options.clinical}")
    return _Source(frame, both, series)


def _of_table(options: argparse.Namespace, frame: pd.DataFrame) -> pd.DataFrame:
    """The patients of a table; where their scans come from is looked up in the index when that is asked for."""
    from ctfed.tcia.index import DEFAULT_COLLECTIONS, read_series
    from ctfed.tcia.patients import ORIGIN, patients_of

    if not [name for name in options.by if name in ORIGIN and name not in frame]:
        return frame[["patient"]].copy()
    found = patients_of(read_series(options.collection or DEFAULT_COLLECTIONS, kernels=options.kernels))
    both = frame[["patient"]].merge(found[["patient", *ORIGIN]], on="patient")
    if lost := len(frame) - len(both):
        print(f"left out: {lost} patients who are in no chosen collection of the index")
    return both
