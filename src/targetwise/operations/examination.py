"""One variant, or any file, examined before anything is trained: whether it may be, and what it is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from targetwise import cells
from targetwise.check.process import check_files
from targetwise.diffusion.effective import SAME, difference
from targetwise.errors import UserError, nearest
from targetwise.recipe import comparisons, config, kinds, variants
from targetwise.text import aligned, sparkline

#: Time steps of the table, as shares of the last one.
SHOWN = (0.0, 0.25, 0.5, 0.75, 1.0)

#: Known objectives that are told, the nearest ones.
NEAREST = 3

#: If so small a share of the time steps has half of the squared gradient, they decide how the training begins.
FEW = 0.1


@dataclass(frozen=True)
class Candidate:
    """Something to be examined: a variant's definition, or a file with the settings it is to have.

    Attributes:
        name: of the variant; with changes, their values are in it, as in the name of a sweep's.
        file: with the two functions of its target.
        definition: what `config.yaml` would say of it.
        specification: what is checked, see :func:`targetwise.check.process.check_files`.
    """

    name: str
    file: Path
    definition: dict[str, Any]
    specification: dict[str, Any]


def candidate(study: Mapping[str, Any], what: str, changes: Sequence[str] = ()) -> Candidate:
    """Return what ``what`` means in a study.

    Args:
        study: the whole configuration.
        what: a name that the grid may have, or the path of a parameterization's file, anywhere.
        changes: fields of the variant as ``KEY=VALUE``, with dots, e.g. ``diffusion.schedule=flow``.

    Raises:
        UserError: if there is no such name or file, or a change is none.
    """
    fields = [_change(each) for each in changes]
    twice = next((key for index, (key, _) in enumerate(fields) if key in dict(fields[:index])), None)
    if twice:
        raise UserError(f"--set sets {twice} twice; leave one out")
    changed = variants.nested({"parameterizations": {"--set": dict(fields)}})["parameterizations"]["--set"]
    file = Path(what)
    own = file.suffix == ".py" or len(file.parts) > 1
    if own and not file.is_file():
        raise UserError(f"{what} does not exist; name a parameterization's file, or a variant of the study")
    base = file.stem if own else what
    known = variants.known(study)
    if not own and base not in known:
        raise UserError(f"there is no parameterization '{base}'; {nearest(base, known)}, or give the path of a file")
    name = "_".join([base, *map(variants.in_name, _values(changed))])
    definition = {} if own else dict(study["parameterizations"].get(base) or {})
    definition = variants.merge({"target": base, **definition}, changed)
    target = definition["target"]
    files = {target: str(file)} if own else {}
    # What is elsewhere cannot be named in a configuration; all else in the definition can be held against it.
    stand_in = next(iter(kinds.known("parameterizations"))) if own else target
    tried = {**definition, "target": stand_in, "loss_space": definition.get("loss_space", stand_in)}
    grid = {**study["grid"], "parameterizations": [name]}
    alone = {
        "grid": grid,
        "comparison": {**study["comparison"], **comparisons.NOTHING_DECLARED},
        "parameterizations": {**study["parameterizations"], name: tried},
    }
    validated = config.validate({**study, **alone})
    path = cells.RESULTS / study["study"] / name / "variant.json"
    specification = {**cells.specifications(validated)[path], "target": target, "files": files}
    specification["loss_space"] = definition.get("loss_space", target)
    return Candidate(name, file if own else kinds.file_of("parameterizations", target), definition, specification)


def examine(candidate: Candidate) -> dict[str, Any]:
    """Check a candidate and describe it; see :func:`targetwise.check.process.check_files`.

    Raises:
        UserError: with the function, time step and rule that it breaks.
    """
    return check_files(candidate.specification, describe=True)


def render(candidate: Candidate, found: Mapping[str, Any]) -> str:
    """Return what an examination found, for a terminal."""
    diffusion = candidate.specification["diffusion"]
    return "\n".join(
        [
            f"{candidate.name} ({candidate.file}), path {diffusion['schedule']}, times {diffusion['times']}, "
            f"loss in {found['loss_space']}, weighting {found['weighting']}",
            "",
            *_formula(found),
            "",
            *_paths(found, diffusion["schedule"]),
            "",
            *_curves(found),
            "",
            *_verdict(candidate, found),
        ]
    )


def _change(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UserError(f"--set takes KEY=VALUE, e.g. weighting=snr or diffusion.schedule=flow; not '{text}'")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {text}: the value is not valid YAML") from None


def _values(changes: Mapping[str, Any]) -> Iterator[Any]:
    for value in changes.values():
        if isinstance(value, Mapping):
            yield from _values(value)
        else:
            yield value


def _formula(found: Mapping[str, Any]) -> Iterator[str]:
    """Tell the target's coefficients, if it has any, and the sizes of errors and gradient, at a few time steps."""
    blocks = found["coefficients"]
    gradient, gain = found["gradient_at_start"], np.array(found["curve"]["gain_to_x0"])
    steps = [round(share * (len(gradient) - 1)) for share in SHOWN]
    rows = [["t", *map(str, steps)]]
    for number, block in enumerate(blocks or [], 1):
        index = "₁₂₃₄₅₆₇₈₉"[number - 1] if len(blocks) > 1 else ""
        rows += [
            [f"{letter}{index}", *(f"{block[of][t] + 0.0:.4g}" for t in steps)] for letter, of in COEFFICIENTS.items()
        ]
    told = [int(np.abs(np.array(found["curve"]["t"]) - t).argmin()) for t in steps]
    rows.append(["error of x_0 by one of the output", *(f"{gain[place]:.3g}" for place in told)])
    rows.append(["weight of the squared x_0 error", *(f"{_weight(found)[place]:.3g}" for place in told)])
    rows.append(["gradient of the output at the start", *(f"{gradient[t]:.3g}" for t in steps)])
    if blocks is None:
        yield "y is not p·ε + q·x_0 with one p and q for each time step: it is another function of the two"
    else:
        yield f"y = p·ε + q·x_0{', in each of its blocks of channels' if len(blocks) > 1 else ''}; found by probing"
    yield from aligned(rows)


COEFFICIENTS = {"p": "epsilon", "q": "x_0"}


def _weight(found: Mapping[str, Any]) -> list[float]:
    weight: list[float] = found["curve"]["weight_in_x0_space"]
    return weight


def _paths(found: Mapping[str, Any], own: str) -> Iterator[str]:
    rows = [["path", "inverts to, in fp64", "in fp32", "error of x_0 by one of the output, up to"]]
    refused = {}
    for name, each in sorted(found["paths"].items(), key=lambda item: item[0] != own):
        if "refused" in each:
            refused[name] = each["refused"]
            continue
        trip, gain = each["round_trip"], each["gain_to_x0"]
        errors = (f"{trip[kind]['largest_error']:.1e}" for kind in ("fp64", "fp32"))
        rows.append([name, *errors, f"{gain['largest']:.3g} (t = {gain['at_t']})"])
    yield from aligned(rows)
    for name, why in refused.items():
        yield f"{name}: refused there; {why}"


def _curves(found: Mapping[str, Any]) -> Iterator[str]:
    """Draw what varies over time, each on a logarithmic scale of its own."""
    last, objective = len(found["gradient_at_start"]) - 1, found["objective"]
    drawn = {
        "error of x_0 by one of the output": (found["curve"]["gain_to_x0"], f"t = 0 … {last}"),
        "gradient of the output at the start": (found["gradient_at_start"], f"t = 0 … {last}"),
    }
    levels = objective["log_snr"]
    if levels:
        ends = f"ln SNR = {levels[0]:.1f} … {levels[-1]:.1f}".replace("-", "−")
        drawn["effective weight"] = (objective["effective_weight"], ends)
    yield from aligned([[what, sparkline(values), ends] for what, (values, ends) in drawn.items()])


def _verdict(candidate: Candidate, found: Mapping[str, Any]) -> Iterator[str]:
    """Say in sentences what follows."""
    yield f"{candidate.name} may be trained: its two functions are pure and inverses of each other."
    ill, gain = found["ill_conditioned"], found["gain_to_x0"]
    if ill["steps"]:
        where = ", ".join(f"{first} to {last}" if first < last else f"{first}" for first, last in ill["ranges"])
        yield (
            f"Ill-conditioned at t = {where}: there an error of the output reaches x_0 more than "
            f"{ill['gain_above']:.0f}-fold, at t = {gain['at_t']} {gain['largest']:.3g}-fold."
        )
    else:
        yield f"Well conditioned: an error of the output reaches x_0 at most {gain['largest']:.3g}-fold."
    yield from _uneven(np.nan_to_num(found["gradient_at_start"]))
    if not found["objective"]["log_snr"]:
        yield "What its objective asks for at each noise level is learned, and known only after a training."
    shares = {name: difference(found["objective"], each) for name, each in found["known_objectives"].items()}
    outputs = [name for name in found["known_outputs"] if name != found["target"]]
    for name in outputs:
        objective = ", and so is its objective" if shares.get(name, 1) < SAME else ", but not its objective"
        yield f"What the network outputs is that of {name}{objective} with a flat loss."
    same = [name for name, share in shares.items() if share < SAME and name not in (*outputs, found["target"])]
    if same:
        yield (
            f"It is the objective of a flat loss of {' and of '.join(same)}: errors count alike at every noise "
            "level, and only what the network outputs differs."
        )
    others = sorted((name for name in shares if SAME <= shares[name] < 1), key=shares.__getitem__)[:NEAREST]
    if others:
        shared = ", ".join(f"{1 - shares[name]:.0%} with {name}".replace("%", " %") for name in others)
        yield f"Of its effective weight it shares {shared} (flat losses)."


def _uneven(gradient: np.ndarray) -> Iterator[str]:
    """Say which time steps a training begins with, where they are few."""
    squares = np.sort(gradient**2)[::-1]
    few = int((squares.cumsum() < squares.sum() / 2).sum()) + 1
    if squares[0] and few <= FEW * len(gradient):
        most = np.sort(np.argsort(gradient)[-few:])
        yield (
            f"Half of the squared gradient at the start comes from {few} of {len(gradient)} time steps, between "
            f"t = {most[0]} and {most[-1]}: the training begins with them, unless a weighting says otherwise."
        )
