"""The one exception that means "the user can fix this", and how a command ends with it."""

import errno
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches

#: Exit codes of every command and script; docs/training.md lists them for users.
EXIT_ERROR = 1
EXIT_TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the state is saved, start the same command again
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """What is wrong, where, and what would be right, in one line."""


class StoppedEarlyError(UserError):
    """The work was asked to stop and saved its state; the same command goes on from there."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return a hint like ``did you mean 'v'? (choices: epsilon, v, x0)``."""
    known = sorted(choices)
    close = get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}(choices: {', '.join(known) or 'none'})"


def in_one_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of what it says, like ``KeyError: 'scale'``."""
    kind, (first, *_) = type(error).__name__, str(error).splitlines() or [""]
    return f"{kind}: {first}" if first else kind


def require(*packages: str) -> None:
    """Make sure that packages are there which are not imported but started as programs.

    Raises:
        UserError: naming the first that is missing, and how to get it.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(_missing(package))


def _missing(package: str) -> str:
    return f"the package '{package}' is missing; run `make setup`, then `. .venv/bin/activate`"


def run(main: Callable[[], None]) -> None:
    """Run a command's main function; what the user can fix ends in one line and an exit code."""
    try:
        main()
        sys.stdout.flush()  # here and not when Python ends, where a reader that has left could not be handled
    except StoppedEarlyError as error:
        _leave(f"stopped: {error}", EXIT_TRY_AGAIN)
    except UserError as error:
        _leave(f"error: {error}", EXIT_ERROR)
    except KeyboardInterrupt:
        _leave("interrupted; the same command goes on from the last saved state", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_ERROR)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "targetwise":
            raise
        _leave(f"error: {_missing(error.name or '')}", EXIT_ERROR)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EISDIR, errno.ENOTDIR):
            raise
        name = error.filename2 or error.filename  # a file is written under another name and renamed to the second
        where = f": {name}" if name else ""
        _leave(
            f"error: {error.strerror}{where}; nothing was left half-written, correct it and run again",
            EXIT_ERROR,
        )


def _leave(message: str, code: int) -> None:
    print(" ".join(message.splitlines()), file=sys.stderr)
    sys.exit(code)
