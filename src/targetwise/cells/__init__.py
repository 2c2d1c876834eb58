"""The cells of a study: where their files are, what decides them, and whether they are current.

Everything that needs to know asks here: Snakemake's rules, the chain without Snakemake, DVC, `targetwise status`.
"""

from targetwise.cells.grid import RESULTS, Cell, Draw, draws, find, grid, reference_name, sampling_file, shared_jobs
from targetwise.cells.keys import (
    Keys,
    draw_key,
    model_files,
    probe_files,
    probe_key,
    row_key,
    sampling_files,
    sampling_key,
    source_digests,
    source_files,
    training_key,
)
from targetwise.cells.specification import (
    JUDGING,
    PROTOCOL,
    require_specifications,
    specifications,
    write_specifications,
)

__all__ = [
    "JUDGING",
    "PROTOCOL",
    "RESULTS",
    "Cell",
    "Draw",
    "Keys",
    "draw_key",
    "draws",
    "find",
    "grid",
    "model_files",
    "probe_files",
    "probe_key",
    "reference_name",
    "require_specifications",
    "row_key",
    "sampling_file",
    "sampling_files",
    "sampling_key",
    "shared_jobs",
    "source_digests",
    "source_files",
    "specifications",
    "training_key",
    "write_specifications",
]
