"""The stored example computed again by R, whose printed numbers test_inference_reference.py holds ours against."""

import csv
import io
import math
import shutil
import subprocess

import pytest
from helpers import ROOT
from test_inference_reference import DUNNETT, DUNNETT_OF_PART, TUKEY

from targetwise.inference.quantiles import Range, critical

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("Rscript") is None, reason="Rscript is missing; on Debian: apt-get install r-base-core"
    ),
]

READ = """
d <- read.csv("tests/data/seeds.csv", stringsAsFactors = FALSE)
d$y <- log(d$value)
d$parameterization <- factor(d$parameterization, levels = unique(d$parameterization))
d$seed <- factor(d$seed)
one <- d[d$draw == 0, ]
part <- subset(one, !(parameterization == "x0" & seed == "1") & !(parameterization == "epsilon" & seed == "3"))
"""


def run(script, *packages):
    for package in packages:
        if subprocess.run(["Rscript", "-e", f"library({package})"], capture_output=True).returncode:
            pytest.skip(f"R's package {package} is missing; on Debian: apt-get install r-cran-{package}")
    command = ["Rscript", "-e", READ + script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [[float(part) for part in row] for row in csv.reader(io.StringIO(done.stdout))]


def test_tukey():
    found = run('write.table(TukeyHSD(aov(y ~ seed + parameterization, one), "parameterization")$parameterization, '
                'sep = ",", row.names = FALSE, col.names = FALSE)')  # fmt: skip
    for row, expected in zip(found, TUKEY.values(), strict=True):
        assert row == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("frame", "expected"), [("one", DUNNETT), ("part", DUNNETT_OF_PART)])
def test_dunnett(frame, expected):
    script = f"""
    set.seed(1)
    g <- glht(lm(y ~ seed + parameterization, {frame}), linfct = mcp(parameterization = "Dunnett"))
    i <- confint(g, calpha = adjusted_calpha(abseps = 1e-5, maxpts = 1e6))$confint
    p <- summary(g, test = adjusted(abseps = 1e-5, maxpts = 1e6))$test$pvalues
    write.table(cbind(i, p), sep = ",", row.names = FALSE, col.names = FALSE)
    """
    for row, of in zip(
        run("suppressMessages(library(multcomp))\n" + script, "multcomp"), expected.values(), strict=True
    ):
        assert row == pytest.approx(of, abs=1e-4)


def test_mixed_model():
    script = """
    suppressMessages(library(lme4))
    v <- as.data.frame(VarCorr(lmer(y ~ parameterization + (1 | seed) + (1 | seed:parameterization), d, REML = TRUE)))
    w <- as.data.frame(VarCorr(lmer(y ~ parameterization + (1 | seed), part, REML = TRUE)))
    cat(format(c(v$vcov, w$vcov), digits = 10), sep = ","); cat("\\n")
    """
    expected = [0.00154661898, 0.00209408455, 0.00014146699, 0.0020846755, 0.0012547840]
    assert run(script, "lme4")[0] == pytest.approx(expected, rel=1e-4)


def test_quantiles_of_the_studentized_range():
    """Not at 2 degrees of freedom, where R gives 6.0796 for two means; √2·t is 6.0849, and so is ours."""
    found = run('cat(format(qtukey(.95, c(3, 10, 40), c(4, 18, 78)), digits = 9), sep = ","); cat("\\n")')[0]
    ours = [critical(Range(k), df, 0.95) * math.sqrt(2) for k, df in ((3, 4), (10, 18), (40, 78))]
    assert ours == pytest.approx(found, rel=2e-6)
