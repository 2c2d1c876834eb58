"""The files that the jobs of a run leave behind, written at will and without a training."""

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from helpers import as_measured, sampled_facts
from sklearn.datasets import load_digits

from targetwise import cells
from targetwise.cells import Cell
from targetwise.cells.rows import check_row
from targetwise.files import canonical_json, sha256_of_array
from targetwise.operations import status

DIGEST = "0123456789abcdef" * 4
BEGAN = 1_790_000_000.0
ENVIRONMENT = {
    "versions": {"python": "3.11.7", "torch": "2.0"},
    "machine": {"host": "node1", "system": "Linux x86_64", "cpu": "CPU", "cores": 2},
    "code": {"commit": "c" * 40, "modified": False},
}


def write_json(path: Path, content: Any) -> None:
    """Write as the project does, but without waiting for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(canonical_json(content))


class Files:
    """The files of a study's cells, in the current folder."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Write the specifications and, unless the data set is prepared, its manifest."""
        self.config = config
        self.cells = cells.grid(config)
        self.batch = config["training"]["global_batch"]
        self.delay = 0.0
        digits = load_digits().images
        self.images = np.clip(digits * 16, 0, 255).astype(np.uint8)[..., None]
        cells.write_specifications(config)
        train = {"sha256": DIGEST, "shape": list(self.images.shape)}
        manifest = Path("data") / config["data"]["dataset"] / "manifest.json"
        if not manifest.exists():
            write_json(manifest, {"splits": {"train": train}})
        self.keys = {each.cell: each.key for each in status.standings(config)}

    def line(self, cell: Cell, step: int) -> dict[str, Any]:
        """Return a line of train.jsonl; a step takes a second, and all are later by :attr:`delay` seconds."""
        index = self.cells.index(cell)
        loss = 0.1 + (1 + 0.1 * index) / (1 + step / 20)
        return {
            "step": step,
            "loss": loss,
            "gradient_norm": 2 * loss,
            "clipped_share": 0.25,
            "loss_by_quarter": [loss * share for share in (2.0, 1.0, 0.6, 0.4)],
            "images_per_second": float(self.batch),
            "memory_peak_bytes": 1 << 30,
            "time": BEGAN + 10_000 * index + step + self.delay,
        }

    def log(self, cell: Cell, steps: list[int], *, saved: int = 0, alive: bool = True) -> None:
        """Be in training: logged at ``steps``, state saved after step ``saved``, the heart beating or stopped."""
        state = cell.folder / "state/train"
        state.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(self.line(cell, step)) + "\n" for step in steps)
        (state / "train.jsonl").write_text(text)
        if saved:
            (state / f"step-{saved:09d}.sha256").write_text(DIGEST)
        write_json(state / "heartbeat.json", {"host": "node1", "process": 1, "job": "", "beat": 4})
        if not alive:
            long_ago = time.time() - 2 * status.FRESH_SECONDS
            os.utime(state / "heartbeat.json", (long_ago, long_ago))

    def fail(self, cell: Cell, words: str) -> None:
        """End with an error: the heartbeat is taken away, the log has the last words."""
        (cell.folder / "log").mkdir(exist_ok=True)
        (cell.folder / "log/train.log").write_text(f"train {cell.name}: 5/10 steps\n{words}\n")
        (cell.folder / "state/train/heartbeat.json").unlink(missing_ok=True)

    def publish(self, cell: Cell, steps: list[int], diverged: str | None = None) -> None:
        """Be trained, or diverged for a reason."""
        lines = [self.line(cell, step) for step in steps]
        if diverged:
            lines[-1] |= {"loss": None, "gradient_norm": None, "diverged": {"step": steps[-1]}}
        (cell.folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        outcome = {
            "status": "diverged" if diverged else "finished",
            "reason": diverged,
            "steps": steps[-1],
            "final_loss": lines[-1]["loss"],
            "clipped_share": 0.25,
            "model_sha256": DIGEST,
            "key": self.keys[cell],
            "seconds": float(steps[-1]),
            "finished_at": lines[-1]["time"] + 1,
            "environment": ENVIRONMENT,
        }
        write_json(cell.folder / "training.json", outcome)
        shutil.rmtree(cell.folder / "state/train", ignore_errors=True)

    def measure(self, cell: Cell, draw: int = 0, reason: str | None = None) -> None:
        """Be sampled and measured; with a ``reason`` the samples were not finite."""
        for sampler in {draw.sampler for draw in cells.draws(self.config, cell.parameterization)}:
            self._measure(cell, sampler, draw, reason)

    def _measure(self, cell: Cell, sampler: str, draw: int, reason: str | None) -> None:
        first = 100 * self.cells.index(cell) % 1000
        images = self.images[:0] if reason else self.images[first : first + 64]
        samples = cell.folder / "samples" / sampler / f"draw{draw}.npz"
        samples.parent.mkdir(parents=True, exist_ok=True)
        np.savez(samples, images)
        common = {
            "draw": draw,
            "status": "diverged" if reason else "finished",
            "reason": reason,
            "samples_sha256": sha256_of_array(images),
            "model_sha256": DIGEST,
            "seconds": 1.0,
            "environment": ENVIRONMENT,
        }
        status = json.loads((cell.folder / "training.json").read_text())["status"]
        made = sampled_facts(self.config, cell, sampler, {"model_sha256": DIGEST, "status": status, "draw": draw})
        write_json(samples.with_suffix(".json"), {"images": len(images), **made, **common})
        value = None if reason else 40.0 + self.cells.index(cell) + draw
        row = {
            "what": "cell",
            "cell": vars(cell),
            "file": None,
            "metric": "FD (digits features)",
            "value": value,
            "name": "frechet",
            "values": {"frechet": value, "kid": value / 10} if value else {},
            "n": len(images),
            "mode": "native",
            "implementation": "clean-fid",
            "extractor": "digits",
            "extractor_sha256": DIGEST,
            "reference": "digits train",
            "reference_sha256": DIGEST,
            "reference_n": 1285,
            "sampler": sampler,
            "marks": [],
            **common,
        }
        row = as_measured(self.config, row)
        check_row(row, cell.name)
        write_json(cell.folder / "fid" / sampler / f"draw{draw}.json", row)

    def finish(self, cell: Cell, steps: list[int]) -> None:
        """Be trained and measured, with a manifest."""
        self.publish(cell, steps)
        for draw in range(self.config["sampling"]["draws"]):
            self.measure(cell, draw)
        write_json(cell.folder / "manifest.json", {"cell": vars(cell)})
