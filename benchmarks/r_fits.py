"""Fits by R's survival and glmnet, for comparison where Rscript has them (Debian: r-cran-survival, r-cran-glmnet)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from survival_data import Survival

from ctfed.federation import FloatArray

COXPH = """
fit <- coxph(outcome ~ x{strata}, ties = "{ties}",
             control = coxph.control(eps = 1e-14, toler.chol = 1e-15, iter.max = 100))
say(c(coef(fit), sqrt(diag(vcov(fit))), fit$loglik[2]))
"""
GLMNET = """
fit <- glmnet(x, outcome, family = "cox", alpha = {l1_ratio!r}, lambda = c({lambdas}), penalty.factor = c({factors}),
              standardize = FALSE, thresh = {tolerance!r}, maxit = 1e8)
say(as.matrix(coef(fit)))
"""
PREAMBLE = """
suppressMessages({{library(survival); library({library})}})
read <- function(name, count) readBin(file.path("{folder}", name), "double", count)
say <- function(numbers) cat(sprintf("%.17g\\n", numbers), sep = "")
n <- {rows}
x <- matrix(read("x", n * {columns}), n)
outcome <- Surv(read("time", n), read("event", n))
centre <- read("centre", n)
"""


@cache
def versions() -> str | None:
    """R's and its packages' versions, None where Rscript or a package is absent."""
    program = shutil.which("Rscript")
    if program is None:
        return None
    packages = 'for (name in c("survival", "glmnet")) cat(",", name, getNamespaceVersion(name))'
    done = subprocess.run(
        [program, "-e", f'cat("R", format(getRversion())); {packages}'], capture_output=True, text=True
    )
    return done.stdout if done.returncode == 0 else None


def coxph(data: Survival, ties: str, stratified: bool = False) -> tuple[FloatArray, FloatArray, float]:
    """Coefficients, standard errors and log-likelihood; strata are the centres."""
    found = _run(data, COXPH.format(strata=" + strata(centre)" if stratified else "", ties=ties), "survival")
    width = len(data.names)
    return found[:width], found[width : 2 * width], float(found[-1])


def glmnet_path(
    data: Survival, penalizers: Sequence[float], l1_ratio: float, factors: FloatArray, tolerance: float
) -> FloatArray:
    """Coefficients (penalizers, p); glmnet rescales the factors to sum to p."""
    words = GLMNET.format(
        l1_ratio=l1_ratio, lambdas=_numbers(penalizers), factors=_numbers(factors), tolerance=tolerance
    )
    return _run(data, words, "glmnet").reshape(len(penalizers), -1)


def _numbers(values: Sequence[float] | FloatArray) -> str:
    return ", ".join(repr(float(value)) for value in values)


def _run(data: Survival, words: str, library: str) -> FloatArray:
    """The numbers that an R script says about the data, which it reads in binary."""
    with tempfile.TemporaryDirectory(prefix="ctfed-r-") as folder:
        _, centre = np.unique(data.centre, return_inverse=True)
        for name, values in (("x", data.x.T), ("time", data.time), ("event", data.event), ("centre", centre)):
            np.ascontiguousarray(values, dtype=np.float64).tofile(Path(folder) / name)
        rows, columns = data.x.shape
        preamble = PREAMBLE.format(library=library, folder=folder, rows=rows, columns=columns)
        script = Path(folder) / "fit.R"
        script.write_text(preamble + words)
        done = subprocess.run(["Rscript", "--vanilla", str(script)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"Rscript failed: {done.stderr[-2000:]}")
        return np.array([float(line) for line in done.stdout.split()])
