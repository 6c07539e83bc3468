"""The index of the NCI Imaging Data Commons (IDC), which holds the archive's public collections; read offline.

The index ships inside the package ``idc-index-data``: one row per series. Reconstruction kernels are in a second table,
``ct_index.parquet``, which that package only names; it is used where ``idc-index`` has fetched it, or if it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ctfed.config import did_you_mean
from ctfed.federation.errors import CtfedError

if TYPE_CHECKING:
    import pandas as pd

# Collections of lung cancer with CT and a follow-up that is published with them or at the GDC.
DEFAULT_COLLECTIONS = (
    "nsclc_radiomics",
    "nsclc_radiomics_interobserver1",
    "nsclc_radiomics_genomics",
    "nsclc_radiogenomics",
    "acrin_nsclc_fdg_pet",
    "cptac_luad",
    "cptac_lscc",
    "tcga_luad",
    "tcga_lusc",
)
MASKS = ("RTSTRUCT", "SEG")
_READ = {
    "collection_id": "collection",
    "PatientID": "patient",
    "StudyInstanceUID": "study",
    "SeriesInstanceUID": "series",
    "Modality": "modality",
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "model",
    "instanceCount": "images",
    "series_size_MB": "megabytes",
    "license_short_name": "licence",
    "analysis_result_id": "analysis",
    "series_aws_url": "url",
}
_KERNELS = "ct_index.parquet"


def collection_id(name: str) -> str:
    """'NSCLC-Radiomics' or 'NSCLC Radiogenomics' as the index spells it: 'nsclc_radiomics', 'nsclc_radiogenomics'."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def index_version() -> str:
    """The version of the index that is installed."""
    from importlib.metadata import version

    _package_folder()
    return version("idc-index-data")


def read_collections() -> pd.DataFrame:
    """One row per collection of the chest or of lung cancer: collection, name, cancers, supporting ('Clinical, ...').

    Raises:
        CtfedError: when the index is not installed.
    """
    import pandas as pd

    table = pd.read_parquet(_package_folder() / "collections_index.parquet")
    where = table["cancer_types"].fillna("") + " " + table["tumor_locations"].fillna("")
    chest = table[where.str.contains("lung|chest", case=False) & (table["species"] == "Human")]
    names = {
        "collection_id": "collection",
        "collection_name": "name",
        "cancer_types": "cancers",
        "supporting_data": "supporting",
    }
    chosen: pd.DataFrame = chest[list(names)].rename(columns=names)
    return chosen.sort_values("collection").reset_index(drop=True)


def read_series(collections: Sequence[str], *, analyses: bool = False, kernels: Path | None = None) -> pd.DataFrame:
    """The series of these collections, one row each, in the order of collection, patient and series.

    Args:
        collections: identifiers, in any of the archive's spellings.
        analyses: keep what others have derived from a collection (masks and measurements of later papers) as well.
        kernels: ``ct_index.parquet``; None looks where ``idc-index`` keeps it.

    Returns:
        Columns collection, patient, study, series, modality, manufacturer, model, kernel, institution ('' where the
        index does not know), images, megabytes (10^6 bytes), licence, analysis, url.

    Raises:
        CtfedError: when the index is not installed, a collection is not in it, or the kernels cannot be read.
    """
    import pyarrow.dataset as ds

    wanted = [collection_id(name) for name in collections]
    source = ds.dataset(_package_folder() / "idc_index.parquet")
    read = source.to_table(columns=list(_READ), filter=ds.field("collection_id").isin(wanted))
    table: pd.DataFrame = read.to_pandas()
    table = table.rename(columns=_READ)
    for name in wanted:
        if name not in set(table["collection"]):
            known = source.to_table(columns=["collection_id"]).column(0).unique().to_pylist()
            hint = did_you_mean(name, known)
            raise CtfedError(f"found no collection {name!r} in the index {index_version()}, expected one of it{hint}")
    if not analyses:
        table = table[table["analysis"].isna()]
    table["megabytes"] = table["megabytes"].astype(float)
    table["images"] = table["images"].astype(int)
    for name in ("manufacturer", "model", "licence", "analysis"):
        table[name] = table[name].fillna("")
    table["kernel"] = table["series"].map(_read_kernels(kernels)).fillna("")
    table["institution"] = ""
    return table.sort_values(["collection", "patient", "series"]).reset_index(drop=True)


def kernels_file() -> Path | None:
    """``ct_index.parquet`` where ``idc-index`` keeps it, if it was fetched."""
    try:
        import platformdirs
    except ImportError:
        return None
    folder = Path(platformdirs.user_data_dir("idc_index_data", "IDC", version=index_version()))
    return folder / _KERNELS if (folder / _KERNELS).is_file() else None


def fetch_kernels() -> Path:
    """Let ``idc-index`` fetch ``ct_index.parquet`` from its release on GitHub; needs a network, once.

    Raises:
        CtfedError: without ``idc-index``, or when the table could not be fetched.
    """
    try:
        import idc_index
        import requests
    except ImportError as error:
        raise CtfedError(f"package {error.name!r} is not installed; kernels are fetched by it: ctfed[tcia]") from error
    try:
        cast(Any, idc_index).IDCClient().fetch_index("ct_index")
    except requests.RequestException as error:
        raise CtfedError(
            f"found no connection to the place of {_KERNELS} ({type(error).__name__}), expected one; fetch it "
            "elsewhere and give it with --kernels, or plan on downloaded scans with --folder"
        ) from error
    found = kernels_file()
    if found is None:
        raise CtfedError(f"found no {_KERNELS} after idc-index was asked to fetch it, expected it")
    return found


def _read_kernels(path: Path | None) -> dict[str, str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = path or kernels_file()
    if found is None:
        return {}
    try:
        table = pq.read_table(found, columns=["SeriesInstanceUID", "ConvolutionKernel"])
    except (OSError, pa.ArrowException) as error:
        raise CtfedError(f"{found}: found no table with ConvolutionKernel, expected ct_index.parquet of IDC") from error
    rows = zip(table.column(0).to_pylist(), table.column(1).to_pylist(), strict=True)
    return {uid: kernel if isinstance(kernel, str) else "\\".join(kernel or ()) for uid, kernel in rows}


def _package_folder() -> Path:
    try:
        import idc_index_data
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise CtfedError(
            f"package {error.name!r} is not installed; the index of public collections needs it: ctfed[tcia]"
        ) from error
    return Path(str(idc_index_data.__file__)).parent
