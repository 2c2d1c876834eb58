"""Check a variant's files in a process of its own, because a user's file may end its process, hang or change it.

The caller starts one process per check and imports nothing heavy itself, so that torch is waited for once.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targetwise import errors
from targetwise.errors import UserError
from targetwise.text import counted
from targetwise.training.measurement import AUTO, FORMATS

if TYPE_CHECKING:
    from targetwise.diffusion.parameterization import Parameterization

#: How long the files may take, all calls together and libraries not counted; sound ones take about a second.
SECONDS = 60.0

LEARNED = "; how much a noise level counts is learned, so only the training tells"


def check_files(
    specification: Mapping[str, Any], seconds: float = SECONDS, *, describe: bool = False
) -> dict[str, Any]:
    """Check a variant by its files, in a process of its own.

    What the files print goes to stderr.

    Args:
        specification: the content of ``variant.json``: the variant, and the ``precision`` it is trained in; of
            ``auto``, all that it may turn out to be. ``files``, if there, has the paths of files that are elsewhere,
            by the names that they are checked under.
        seconds: the time limit, counted from when the libraries are imported.
        describe: whether to probe further.

    Returns:
        What :func:`targetwise.check.roundtrip.check` returns, and with ``describe`` what
        :func:`targetwise.check.probing.describe` does, beside it.

    Raises:
        UserError: as there; or if a file cannot be loaded, changes the process, ends it, or does not end in time.
    """
    # A new process and not a fork, which can hang where torch's threads run; in a session of its own, so that Ctrl-C
    # reaches only the caller, which ends it. -P: no other stage can import what is in the working directory.
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__, str(seconds), *(["describe"] if describe else [])],
        input=json.dumps(specification),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    lines = done.stdout.split("\n")[:-1]  # a last line without its end was cut short
    last = json.loads(lines[-1]) if lines else {}
    if "error" in last:
        raise UserError(last["error"])
    if "found" in last and done.returncode == 0:
        return last["found"]
    running = last.get("running")
    if done.returncode == -signal.SIGALRM:
        what = running or f"the check of parameterization {specification['target']}"
        raise UserError(f"{what} did not end within {seconds:g} s; a check of sound files takes a few seconds")
    how = f"exit code {done.returncode}"
    if done.returncode < 0:
        how = f"signal {signal.Signals(-done.returncode).name}"
    if running is None:
        raise UserError(
            f"the check of parameterization {specification['target']} ended with {how}, outside of its functions; "
            "what it printed may say why"
        )
    raise UserError(
        f"{running} ended the process with {how}; a parameterization must leave the process as it found it"
    )


def in_words(found: Mapping[str, Any]) -> str:
    """Return how well a variant is conditioned, by what its check found."""
    gain, ill = found["gain_to_x0"], found["ill_conditioned"]
    return (
        f"inverts to {found['round_trip']['fp64']['largest_error']:.1e} in fp64 and "
        f"{found['round_trip']['fp32']['largest_error']:.1e} in fp32; an output error reaches x0 up to "
        f"{gain['largest']:.3g}-fold (t = {gain['at_t']}), over {ill['gain_above']:.0f}-fold at "
        f"{counted(ill['steps'], 'step')}{LEARNED if found.get('uncertainty') else ''}"
    )


def _main() -> None:
    """Check the specification on stdin; tell on stdout, in lines of JSON, what is running and then what was found."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a file prints must not come between the answers

    def tell(**line: Any) -> None:
        print(json.dumps(line), file=answers, flush=True)

    from targetwise.check.roundtrip import check

    specification = json.load(sys.stdin)
    # The system ends the process, whatever it is doing, and also when the caller was killed.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
    try:
        files = specification.get("files", {})
        target, loss_space = (_load(specification[part], files, tell) for part in ("target", "loss_space"))
        stated = set(specification["precision"].values())
        formats = sorted(stated - {AUTO} | set(FORMATS if AUTO in stated else ()))
        found = check(target, loss_space, specification, formats)
        if sys.argv[2:]:
            from targetwise.check.probing import describe

            found |= describe(target, loss_space, specification)
        tell(found=found)
    except UserError as error:
        tell(error=str(error))


def _load(name: str, files: Mapping[str, str], tell: Callable[..., None]) -> "Parameterization":
    """Load a parameterization whose functions tell when they run; ``files`` are elsewhere."""
    from targetwise.check import purity
    from targetwise.diffusion import parameterization

    loading = f"parameterization {name}: loading its file"
    tell(running=loading)
    with purity.process_kept(loading):
        loaded = parameterization.load_file(Path(files[name])) if name in files else parameterization.load(name)
    tell(running=None)

    def run(function: str, *arguments: Any) -> Any:
        tell(running=f"parameterization {name}: {function}")
        result = getattr(loaded, function)(*arguments)
        tell(running=None)
        return result

    return replace(
        loaded,
        compute_training_target=partial(run, "compute_training_target"),
        predict_x0=partial(run, "predict_x0"),
    )


if __name__ == "__main__":
    errors.run(_main)
