"""What a process of the pool does with one patient."""

from __future__ import annotations

import traceback

from ctfed.federation.errors import CtfedError
from ctfed.preparation.cache import DamagedEntry
from ctfed.preparation.outcome import Aside, Outcome
from ctfed.preparation.patient import Case, Patient, Plan

PROCESS = "process"
DIED = Aside(
    PROCESS,
    "worker-died",
    "the process that worked on this patient died twice, most likely for want of memory; fewer workers may help",
)
UNFORESEEN = "unforeseen-error"
MOST_DAMAGED = 32  # entries of one patient; a disk that loses more is no place for a cache

_plan: Plan | None = None


def begin(plan: Plan) -> None:
    """Keep what all patients share; nothing is loaded yet."""
    global _plan
    _plan = plan
    try:
        import SimpleITK as sitk

        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    except ImportError:  # whichever step needs it will say so
        pass


def prepare_patient(case: Case) -> Outcome:
    """One patient's outcome.

    Raises:
        CtfedError: what concerns all patients, such as weights that are not what they should be.
    """
    if _plan is None:
        raise RuntimeError("begin() must run first in every process")
    return outcome_of(case, _plan)


def outcome_of(case: Case, plan: Plan) -> Outcome:
    """One patient's outcome. An error that nobody foresaw sets this patient aside, in words, with its traceback for the
    site's log; it is not kept in the cache, and the command ends with a failure."""
    try:
        for _ in range(MOST_DAMAGED):
            try:
                return Patient(case, plan).run()
            except DamagedEntry:  # it is gone now, and its step is done again
                continue
        return Patient(case, plan).run()
    except MemoryError:
        reason = "found too little memory for this patient, expected more, or fewer workers"
        return Outcome(case.key, None, aside=Aside(PROCESS, "out-of-memory", reason))
    except CtfedError:
        raise
    except Exception as error:
        reason = (
            f"found an error that ctfed did not foresee ({type(error).__name__}); local/prepare.log has its details"
        )
        return Outcome(case.key, None, aside=Aside(PROCESS, UNFORESEEN, reason), detail=traceback.format_exc())
