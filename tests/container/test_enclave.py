"""Three centres without any network: scans to features, a whole study carried as files, each centre's own report.

Everything that a site does runs in containers of the site image as a user that the image does not know, read-only,
without capabilities and without a network. Only with CTFED_SITE_IMAGE=1; see test_images.py for what it needs.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine import SERVER, SITE, WITH_SITE, Engine, give, reason_to_skip

REASON = reason_to_skip() or ("" if WITH_SITE else "needs CTFED_SITE_IMAGE=1")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON or "-")]

UID = 23456
CENTRES = ("phantom-a", "phantom-b", "phantom-c")
PATIENTS, MATRIX = 36, 64
SITE_YAML = """\
ctfed_site: 1
site: {name}
data: {{prepared: true}}
prepare:
  scans: {data}/scans
  clinical: {data}/clinical.csv
  dictionary: {data}/dictionary.yaml
  extraction: {settings}/extraction.yaml
  output: {output}/prepared
secret: {data}/site.secret
trust: {{key: {site}/keys/mask.key, roster: {site}/roster.json, ledger: {output}/ledger}}
"""
SECTIONS = ("cohort", "model", "baseline", "curves", "discrimination")
FEWEST_EXCHANGES, MOST_EXCHANGES = 8, 15


@dataclass
class Enclaves:
    """Folders of three centres and of a server; nothing but `carry` passes between them.

    Attributes:
        engine: runs the containers.
        folder: holds `<centre>/site` (read-only in containers), `<centre>/output`, `<centre>/inbox`, and `server`.
        said: what every container has printed.
    """

    engine: Engine
    folder: Path
    said: list[str]

    def site(self, name: str, *command: str, setup: bool = False) -> str:
        """Run a command in a container of a centre."""
        home = self.folder / name
        mounts = [f"{home}/site:/site" + ("" if setup else ":ro"), f"{home}/output:/output"]
        if not setup:
            mounts += [f"{self.folder}/cohort/all/{name}:/data:ro", f"{self.folder}/cohort/all:/settings:ro"]
            mounts += [f"{home}/inbox:/inbox:ro", f"{self.study}:/study.yaml:ro"]
        return self._run(SITE, *command, mounts=tuple(mounts))

    def server(self, *command: str) -> str:
        """Run a command in a container of the server."""
        return self._run(SERVER, *command, mounts=(f"{self.folder}/server:/server", f"{self.study}:/study.yaml:ro"))

    @property
    def study(self) -> Path:
        """The study's file."""
        return self.folder / "study.yaml"

    def carry(self, source: Path, target: Path) -> None:
        """What a person does: copy a folder from one side to the other."""
        shutil.copytree(source, target / source.name, dirs_exist_ok=True)
        give(target, UID, UID)

    def _run(self, image: str, *command: str, mounts: tuple[str, ...]) -> str:
        told = self.engine.run(image, *command, user=f"{UID}:{UID}", mounts=mounts, timeout=1800)
        assert told.returncode == 0, f"{command}: {told.stdout[-2000:]}{told.stderr[-2000:]}"
        self.said.append(told.stdout + told.stderr)
        return told.stdout


def at_every_centre(work: Callable[[str], object]) -> None:
    """Do something at all centres, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, CENTRES))


@pytest.fixture(scope="module")
def prepared(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Enclaves:
    """Centres with keys, scans and prepared features, who have approved the study."""
    folder = tmp_path_factory.mktemp("enclaves")
    enclaves = Enclaves(engine, folder, [])
    for name in (
        "cohort",
        "server",
        *(f"{centre}/{part}" for centre in CENTRES for part in ("site", "output", "inbox")),
    ):
        (folder / name).mkdir(parents=True)
    studies = Path(__file__).resolve().parents[2] / "site_config" / "studies"
    shutil.copyfile(studies / "phantom.yaml", enclaves.study)
    give(folder, UID, UID)
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o055)
    phantom = ("phantom", "--out", "/cohort/all", "--patients", str(PATIENTS), "--matrix", str(MATRIX))
    enclaves._run(SITE, *phantom, mounts=(f"{folder}/cohort:/cohort",))
    for name in CENTRES:
        enclaves.site(name, "keygen", "/site/keys", "--site", name, setup=True)
        (folder / "server" / f"{name}.json").write_bytes((folder / name / "site" / "keys" / "public.json").read_bytes())
    public = [word for name in CENTRES for word in ("--site", f"/server/{name}.json")]
    give(folder / "server", UID, UID)
    enclaves.server("provision", "/server/kit", *public, "--address", "hub.example.org:8000")
    for name in CENTRES:
        site = folder / name / "site"
        shutil.copyfile(folder / "server" / "kit" / "sites" / name / "roster.json", site / "roster.json")
        text = SITE_YAML.format(name=name, data="/data", settings="/settings", output="/output", site="/site")
        (site / "site.yaml").write_text(text, encoding="utf-8")
        give(site, UID, UID)
    at_every_centre(lambda name: enclaves.site(name, "prepare", "--site", "/site/site.yaml", "--workers", "1"))
    at_every_centre(lambda name: enclaves.site(name, "approve", "/study.yaml", "--site", "/site/site.yaml", "--yes"))
    return enclaves


@pytest.fixture(scope="module")
def carried(prepared: Enclaves) -> tuple[Enclaves, int]:
    """The study, carried from its opening to its report; and the number of exchanges."""
    server, exchanges = prepared.folder / "server", 0
    settings = ("--study", "/study.yaml", "--roster", "/server/kit/server/roster.json")
    settings += ("--folder", "/server/packages", "--out", "/server/out")

    def exchange(name: str) -> None:
        home = prepared.folder / name
        (question,) = (server / "packages" / "ask").glob(f"exchange-{exchanges:03d}-question-{name}")
        prepared.carry(question, home / "inbox")
        answer = ("--site", "/site/site.yaml", "--study", "/study.yaml", "--folder", "/inbox")
        prepared.site(name, "round", "answer", *answer, "--egress", "/output/egress")
        prepared.carry(
            home / "output" / "egress" / f"exchange-{exchanges:03d}-answer-{name}", server / "packages" / "in"
        )

    while exchanges < MOST_EXCHANGES:
        prepared.server("round", "ask", *settings)
        if (server / "out" / "results.json").is_file():
            return prepared, exchanges
        exchanges += 1
        at_every_centre(exchange)
    raise AssertionError(f"no report after {exchanges} exchanges")


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("name", CENTRES)
def test_scans_become_features_without_a_network(prepared: Enclaves, name: str) -> None:
    local = prepared.folder / name / "output" / "prepared" / "local"
    assert (local / "features.parquet").is_file()
    with (local / "acquisition.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == PATIENTS // len(CENTRES)
    assert all(path.stat().st_uid == UID for path in local.rglob("*"))


def test_the_carried_study_has_the_result_of_the_run_in_one_process(carried: tuple[Enclaves, int]) -> None:
    enclaves, exchanges = carried
    assert FEWEST_EXCHANGES <= exchanges <= MOST_EXCHANGES
    for name in CENTRES:
        home = f"/all/{name}"
        text = SITE_YAML.format(
            name=name,
            data=f"/all/cohort/all/{name}",
            settings="/all/cohort/all",
            output=f"{home}/output",
            site=f"{home}/site",
        )
        (enclaves.folder / name / "output" / "alone.yaml").write_text(text, encoding="utf-8")
    give(enclaves.folder, UID, UID)
    sites = [word for name in CENTRES for word in ("--site", f"/all/{name}/output/alone.yaml")]
    enclaves._run(
        SITE, "simulate", "/all/study.yaml", *sites, "--out", "/all/alone", mounts=(f"{enclaves.folder}:/all",)
    )
    alone = read_json(enclaves.folder / "alone" / "results.json")
    files = read_json(enclaves.folder / "server" / "out" / "results.json")
    assert {name: files[name] for name in SECTIONS} == {name: alone[name] for name in SECTIONS}
    assert (files["run"]["runner"], files["run"]["masked"], files["run"]["rounds"]) == ("files", True, exchanges - 2)


def test_a_centre_writes_its_own_report(carried: tuple[Enclaves, int]) -> None:
    enclaves, _ = carried
    name = CENTRES[0]
    for file in ("results.json", "model.json"):
        shutil.copyfile(enclaves.folder / "server" / "out" / file, enclaves.folder / name / "inbox" / file)
    give(enclaves.folder / name / "inbox", UID, UID)
    enclaves.site(
        name,
        "report",
        "--site",
        "/site/site.yaml",
        "--results",
        "/inbox/results.json",
        "--rows",
        "all",
        "--out",
        "/output/report",
    )
    report = enclaves.folder / name / "output" / "report"
    assert list((report / "local").glob("*.html"))
    assert (report / "egress" / "report.json").is_file()


def test_no_patient_and_no_path_is_in_what_leaves_or_in_what_is_printed(carried: tuple[Enclaves, int]) -> None:
    enclaves, exchanges = carried
    for name in CENTRES:
        output = enclaves.folder / name / "output"
        egress = output / "egress"
        assert len(list(egress.iterdir())) == exchanges
        leaves = b"".join(path.read_bytes() for path in egress.rglob("*") if path.is_file())
        with (output / "prepared" / "local" / "keys.csv").open(encoding="utf-8") as file:
            planted = [cell for row in csv.DictReader(file) for cell in row.values() if len(cell) > 3]
        assert len(planted) >= PATIENTS // len(CENTRES)
        answers = [said for said in enclaves.said if "is answered" in said]
        assert len(answers) == exchanges * len(CENTRES)
        for text in (*planted, "/data", "/output", "/site/", "/settings"):
            assert text.encode() not in leaves
            assert not [said for said in answers if text in said]
        for patient in planted:
            assert not [said for said in enclaves.said if patient in said]
