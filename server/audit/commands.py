"""`ctfed audit`: attack a run's own transcript, and say what it gives away."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctfed.federation.cohort import Cohort

DETERMINED = 1  # exit code when a patient is determined


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``audit`` to the command line."""
    audit = commands.add_parser(
        "audit",
        help="attack the transcript of a run: which patients could the server work out?",
        description="Replay the journal of a run and attack it with everything that an honest-but-curious server "
        "holds. Writes audit.json beside the results; exit code 1 when a patient is determined.",
    )
    audit.add_argument("out", type=Path, help="the output folder of a run, with its journal")
    audit.add_argument("--study", type=Path, required=True, help="the study's YAML file")
    audit.add_argument(
        "--site",
        type=Path,
        help="a site file: candidates are compared with its patients; one with 'partition' has the patients of all "
        "sites, and the attacks that know outcomes run too",
    )
    audit.add_argument("--policy", type=Path, help="a policy file, whose budget the released numbers are held against")
    audit.add_argument("--deep", action="store_true", help="also search from random starts (minutes)")
    audit.set_defaults(command=_audit)


def _audit(options: argparse.Namespace) -> int:
    from ctfed.cohort import load_cohorts
    from ctfed.federation.policy import Policy, load_policy
    from ctfed.node import register_queries
    from ctfed.site import load_site
    from ctfed.study import load_study
    from server.audit.report import as_mapping, as_text, audit_transcript
    from server.audit.transcript import replay

    study = load_study(options.study)
    register_queries()
    print(f"replaying the journal of {options.out}", flush=True)
    transcript = replay(options.out, study)
    cohorts: tuple[Cohort, ...] = ()
    whole = False
    if options.site is not None:
        site = load_site(options.site)
        cohorts, whole = load_cohorts(site, study).cohorts, site.partition is not None
    policy = Policy() if options.policy is None else load_policy(options.policy)
    audit = audit_transcript(
        transcript,
        study,
        cohorts=cohorts,
        whole=whole,
        budget=policy.released_per_value,
        deep=options.deep,
        tell=lambda line: print(f"  {line}", flush=True),
    )
    path = options.out / "audit.json"
    path.write_text(json.dumps(as_mapping(audit), indent=2) + "\n", encoding="utf-8")
    print("\n".join(as_text(audit)))
    print(f"written: {path}")
    return DETERMINED if audit.patients else 0
