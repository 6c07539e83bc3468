"""`ctfed demo`: the trial that ships with lifelines, then phantom CTs of three sites from DICOM to a federated model.

Both run on one machine, with the masks, gates and messages of a deployment.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from ctfed.report.exports import csv_tables
from ctfed.report.pooled import PAGE, RESULTS
from ctfed.report.pooled_traffic import CARD, MODEL
from ctfed.report.reader import Reader
from server.commands import DEMO, EXAMPLES

Tell = Callable[[str], None]

PHANTOM_STUDY = EXAMPLES / "studies" / "phantom.yaml"
SITES, PATIENTS, MATRIX, SEED = 3, 48, 64, 0
WRITTEN = (PAGE, RESULTS, *csv_tables(Reader({})), MODEL, CARD)  # totals, and what was computed from them
STAYS = ("journal", "sites")
LIBRARIES = ("SimpleITK", "pydicom", "highdicom", "radiomics", "pyarrow", "contourpy")


def demo(out: Path, *, imaging: bool = True, tell: Tell = print) -> None:
    """Run both parts; the trial's results go into ``out``, those of the phantoms into ``out/phantoms``.

    Raises:
        CtfedError: in words.
    """
    from server.simulate import simulate

    tell("1. The NCCTG lung-cancer trial as a federation of its institutions")
    simulate(EXAMPLES / "studies" / DEMO, [EXAMPLES / "sites" / DEMO], out, tell=tell)
    lacking = [name for name in LIBRARIES if find_spec(name) is None]
    if imaging and lacking:
        tell(f"2. left out: phantom CTs need ctfed[imaging] ({', '.join(lacking)} not installed)")
    elif imaging:
        tell(f"2. SYNTHETIC chest CTs: {PATIENTS} patients at {SITES} sites, from DICOM to a federated model")
        phantoms(out / "phantoms", tell)
    for line in handing_on(out):
        tell(line)


def handing_on(out: Path) -> list[str]:
    """What of the demonstration's folder holds totals only and may be handed on, and what stays; as in the reports."""
    runs = [folder for folder in (out, out / "phantoms" / "study") if (folder / PAGE).is_file()]
    lines = ["What may be handed on (totals over all sites, no row of a patient):"]
    for folder in runs:
        names = [name for name in WRITTEN if (folder / name).is_file()]
        lines.append(f"  {folder}: {', '.join(names)}")
    lines.append("What stays where it is:")
    for folder in runs:
        kept = [f"{folder / name}/" for name in STAYS if (folder / name).is_dir()]
        lines.append(f"  {', '.join(kept)}: every round's totals; each site's keys and ledger")
    if (scans := out / "phantoms" / "sites").is_dir():
        lines.append(f"  {scans}/: scans, masks and tables of patients (synthetic here)")
    return lines


def phantoms(out: Path, tell: Tell = print) -> None:
    """Phantoms into ``out/sites``, each site prepared, and a study of what was measured, into ``out/study``.

    What an earlier run has made is gone on with: scans that are whole, features in each site's cache, the journal.

    Raises:
        CtfedError: in words.
    """
    from ctfed.phantom import PhantomCohort, write_cohort
    from ctfed.phantom.write import TRUTH
    from ctfed.prepare import prepare
    from ctfed.site import site_files
    from server.simulate import simulate

    begun = time.monotonic()
    folder = out / "sites"
    if not (folder / TRUTH).is_file():  # it is written last
        shutil.rmtree(folder, ignore_errors=True)
        cohort = PhantomCohort(patients=PATIENTS, sites=SITES, matrix=MATRIX, seed=SEED)

        def progress(done: int) -> None:
            if done % (PATIENTS // SITES) == 0:
                tell(f"phantoms: {done} of {PATIENTS} patients written as DICOM")

        write_cohort(folder, cohort, progress)
    sites = site_files(folder)
    for site in sites:
        tell(f"ctfed prepare --site {site}")
        prepare(site, tell=tell)
    simulate(PHANTOM_STUDY, sites, out / "study", tell=tell)
    tell(f"what was planted in the phantoms: {folder / TRUTH}; {time.monotonic() - begun:.0f} s for this part")
