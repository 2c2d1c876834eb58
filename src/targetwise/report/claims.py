"""The claims of a study against its cells: a row for each claim and setting, and the verdicts of all together."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from targetwise import cells
from targetwise.cells.agreement import Agreement
from targetwise.inference import claims as judging
from targetwise.inference.claims import Finding, Region
from targetwise.recipe import claims as recipe
from targetwise.recipe.claims import Claim
from targetwise.recipe.predictions import DIVERGED
from targetwise.report import declarations, looks, quantities
from targetwise.text import counted, listed

COLUMNS = [
    "claim",
    "says",
    "setting",
    "quantity",
    "left",
    "right",
    "unit",
    "statistic",
    "seeds",
    "estimate",
    "low",
    "high",
    "predicts",
    "p_value",
    "p_holm",
    "verdict",
    "lacking",
    "published",
    "source",
    "declared",
    "sha256",
    "marks",
    "looks",
]

Setting = tuple[str, str]


def table(config: Mapping[str, Any], frame: pd.DataFrame) -> pd.DataFrame:
    """Judge the claims of a study.

    Args:
        config: the whole configuration.
        frame: of :func:`targetwise.report.table.table`.

    Returns:
        A row for each claim in each setting, with the columns :data:`COLUMNS`. ``estimate`` and its 95 % interval
        ``low`` to ``high`` are ratios where ``unit`` is ratio. ``p_holm`` is adjusted for all rows.

    Raises:
        UserError: if a claim's file or the record of declarations is damaged.
    """
    study = cells.RESULTS / config["study"]
    claims, seen = recipe.of(config), len(looks.read(study))
    agreement, before = Agreement(config), declarations.read(study)
    named = dict.fromkeys(claim.quantity for claim in claims)
    numbers = {quantity: quantities.values(agreement, frame, quantity) for quantity in named}
    rows, findings, judged = [], [], []
    for claim in claims:
        told = declarations.of(before, config, claim)
        for setting, finding, lacking, can_tell in _by_setting(config, claim, numbers[claim.quantity]):
            findings.append(finding)
            judged.append(can_tell)
            rows.append(
                {
                    "claim": claim.name,
                    "says": claim.content["says"],
                    "setting": setting,
                    **_described(claim),
                    **_of_finding(claim, finding),
                    "lacking": lacking,
                    "declared": told.date,
                    "sha256": claim.digest,
                    "marks": "; ".join(told.marks),
                    "looks": seen,
                }
            )
    for entry, mark in declarations.withdrawn(before, config):
        findings.append(judging.withdrawn())
        judged.append(False)
        rows.append(_withdrawn(entry) | {"marks": mark, "looks": seen})
    # One that cannot be told stays open, and counts for the others as it would have.
    for row, can_tell, (verdict, p) in zip(rows, judged, judging.settle(findings), strict=True):
        row |= {"verdict": verdict if can_tell else judging.OPEN, "p_holm": p}
    return pd.DataFrame(rows, columns=COLUMNS)


def in_words(bound: Mapping[str, float], unit: str) -> str:
    """Return e.g. ``below 0.9``, or ``within a factor of 1.1``."""
    ((word, value),) = bound.items()
    of_within = f"within a factor of {value:g}" if unit == "ratio" else f"within ±{value:g}"
    return {"less": f"below {value:g}", "greater": f"above {value:g}", "within": of_within}[word]


def _described(claim: Claim) -> dict[str, Any]:
    source = claim.content["source"]
    sides = [" or ".join(names) for _, names in claim.terms]
    weighted = [f"{times:+g} {side}" for (times, _), side in zip(claim.terms, sides, strict=True)]
    plain = "contrast" not in claim.content
    return {
        "quantity": claim.quantity,
        "left": sides[0] if plain else " ".join(weighted),
        "right": sides[1] if plain and len(sides) > 1 else "",
        "unit": claim.unit,
        "statistic": claim.statistic,
        "predicts": in_words(
            claim.content["predicts"], "difference" if claim.statistic == "deviation" else claim.unit
        ),
        "published": source.get("published", ""),
        "source": ", ".join(source[part] for part in ("paper", "text", "place") if part in source)
        + (" (unverified)" if source.get("unverified") else ""),
    }


def _of_finding(claim: Claim, finding: Finding) -> dict[str, Any]:
    shown = [finding.estimate, finding.low, finding.high]
    if claim.unit == "ratio" and claim.statistic == "mean":
        shown = [float(np.exp(each)) for each in shown]
    return {
        "seeds": finding.seeds,
        **dict(zip(("estimate", "low", "high"), shown, strict=True)),
        "p_value": finding.p_value,
    }


def _by_setting(
    config: Mapping[str, Any], claim: Claim, numbers: pd.DataFrame
) -> Iterator[tuple[str, Finding, str, bool]]:
    """Yield for each setting its name, what was found, what is lacking, and whether the claim can be told by it."""
    for words, settings in _settings(config, claim):
        finding, why_not = _finding(config, claim, numbers, settings)
        lacking = [_lacking(claim, numbers, settings), why_not]
        first = claim.presupposed
        if first is not None and not judging.holds(_finding(config, first, numbers, settings)[0]):
            told = _described(first)
            why_not = f"{told['left']} / {told['right']} is not shown to be {told['predicts']}"
            lacking.append(why_not)
        yield words, finding, "; ".join(filter(None, lacking)), not why_not


def _finding(
    config: Mapping[str, Any], claim: Claim, numbers: pd.DataFrame, settings: Sequence[Setting]
) -> tuple[Finding, str]:
    """Judge a claim in one setting, or its change between two; say why it cannot be told by that, if it cannot."""
    sides = [_sides(config, claim, numbers, setting) for setting in settings]
    if claim.unit == "ratio":
        without = [name for side in sides for name in side.columns[(side <= 0).any()]]
        if without:
            return (
                judging.unknown(),
                f"{claim.quantity} of {without[0]} is not above 0 everywhere, so it has no ratio",
            )
        sides = [pd.DataFrame(np.log(side)) for side in sides]
    terms = [
        pd.DataFrame({place: _best(side[list(names)]) for place, (_, names) in enumerate(claim.terms)})
        for side in sides
    ]
    diverged = any(np.isinf(each.to_numpy()).any() for each in terms)
    why_not = "what diverged has no number, and the others are the better ones" if diverged else ""
    return _judged(claim, [each.replace(np.inf, np.nan) for each in terms]), why_not


def _judged(claim: Claim, settings: Sequence[pd.DataFrame]) -> Finding:
    """Judge a claim by the numbers of its terms, a row per seed, in one setting or in two that it changes between."""
    if claim.quantity == DIVERGED:
        left, right = (settings[0][place].dropna().to_list() for place in range(2))
        return judging.of_shares(left, right, Region.of(claim.content["predicts"]))
    of_mean = claim.statistic == "mean"
    logarithm = claim.unit == "ratio" and of_mean
    predicted = Region.of(claim.content["predicts"], logarithm=logarithm)
    denied = claim.content.get("denied")
    regions = (Region.of(denied, logarithm=logarithm),) if denied else predicted.outside
    times = np.array([times for times, _ in claim.terms])
    contrasts = [side.to_numpy(dtype=float) @ times for side in settings]
    x = contrasts[0] if len(contrasts) == 1 else contrasts[1] - contrasts[0]
    known = x[np.isfinite(x)].tolist()
    if not of_mean:
        return judging.of_deviation(known, predicted, regions)
    chosen = any(len(names) > 1 for _, names in claim.terms)
    return judging.of_mean(known, predicted, regions, chosen=chosen)


def _settings(config: Mapping[str, Any], claim: Claim) -> Iterator[tuple[str, Sequence[Setting]]]:
    """Return each setting that a claim is judged in, or each two of a change, with its name."""
    axes, at, change = config["grid"], claim.content.get("at", {}), claim.content.get("change", {})
    named = bool(axes.get("samplings"))
    scales = [name for name in axes["scales"] if name in at.get("scale", axes["scales"])]
    # A sampling that no grid names has another name in each variant that sets its steps: it is any.
    samplings = (
        [name for name in axes["samplings"] if name in at.get("sampling", axes["samplings"])] if named else [""]
    )
    if named and not _of_samples(config, claim):
        samplings = samplings[:1]
    if "sampling" in change:
        first, second = change["sampling"]
        for scale in scales:
            yield f"{scale}, {first} → {second}", [(scale, first), (scale, second)]
        return
    for sampling in samplings:
        told = f", {sampling}" if sampling and _of_samples(config, claim) else ""
        if "scale" in change:
            first, second = change["scale"]
            yield f"{first} → {second}{told}", [(first, sampling), (second, sampling)]
        else:
            for scale in scales:
                yield f"{scale}{told}", [(scale, sampling)]


def _of_samples(config: Mapping[str, Any], claim: Claim) -> bool:
    return claim.quantity in config["metric"]["names"]


def _sides(config: Mapping[str, Any], claim: Claim, numbers: pd.DataFrame, setting: Setting) -> pd.DataFrame:
    """Return a number per seed (rows) and variant (columns); infinite where it diverged, NaN where none is."""
    scale, sampling = setting
    here = numbers[(numbers["scale"] == scale) & ((numbers["sampling"] == sampling) | (sampling == ""))]
    diverged = (here["status"] == "diverged") & here["value"].isna()
    here = here.assign(value=here["value"].mask(diverged, np.inf))
    whole = here.pivot_table(index="seed", columns="parameterization", values="value", observed=True)
    return whole.reindex(index=config["grid"]["seeds"], columns=claim.variants)


def _best(side: pd.DataFrame) -> "pd.Series[float]":
    """Return for each seed the value of the variant that has the lowest mean with the other seeds."""
    if side.shape[1] == 1:
        return side.iloc[:, 0]
    chosen = {}
    for seed in side.index:
        others = side.drop(index=seed).mean()
        chosen[seed] = side.loc[seed, others.idxmin()] if others.notna().any() else np.nan
    return pd.Series(chosen, dtype=float)


def _withdrawn(entry: Mapping[str, Any]) -> dict[str, Any]:
    content = entry["content"]
    return dict.fromkeys(COLUMNS, "") | {
        "claim": entry["claim"],
        "says": content["says"],
        "seeds": 0,
        **dict.fromkeys(("estimate", "low", "high", "p_value"), np.nan),
        "unit": content.get("unit", "ratio"),
        "statistic": content.get("statistic", "mean"),
        "declared": entry["date"],
        "sha256": entry["sha256"],
    }


def _lacking(claim: Claim, numbers: pd.DataFrame, settings: Sequence[Setting]) -> str:
    """Return how many cells have no number, and why, e.g. ``1 cell missing and 2 cells diverged``."""
    scales = {scale for scale, _ in settings}
    here = numbers[numbers["scale"].isin(scales) & numbers["parameterization"].isin(claim.variants)]
    without = here[here["value"].isna()].drop_duplicates(["parameterization", "scale", "seed"])
    said = without["status"].replace("finished", "without it").value_counts()
    return listed([f"{counted(count, 'cell')} {status}" for status, count in said.items()]) if len(said) else ""
