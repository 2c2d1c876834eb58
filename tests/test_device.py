"""The configuration's switches reach torch, and what was compiled is kept for other cells."""

import os
import platform
import re
import runpy
import sys

import pytest
import torch
from helpers import ROOT
from torch import nn
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from targetwise.compute import device
from targetwise.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def kernels(monkeypatch):
    """Leave torch's global switches as they were."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32, torch.are_deterministic_algorithms_enabled()
    yield
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before[:3]
    torch.use_deterministic_algorithms(before[3])


@pytest.mark.parametrize("deterministic", [True, False])
def test_determinism_gives_up_the_search_for_the_fastest_kernel(kernels, deterministic):
    device.set_kernels({"deterministic": deterministic, "tf32": False})
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert torch.backends.cudnn.benchmark != deterministic
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if deterministic else None)


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_is_for_products_and_convolutions(kernels, tf32):
    device.set_kernels({"deterministic": False, "tf32": tf32})
    assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == tf32


def test_without_a_gpu_it_is_the_cpu_with_the_cells_threads(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = torch.get_num_threads()
    try:
        assert device.choose(2) == CPU
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("cuda", "why"), [("12.6", "sees none"), (None, "is a build for CPUs")])
def test_a_gpu_that_was_asked_for_and_is_not_there_is_one_line(monkeypatch, cuda, why):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    device.require_gpu()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        UserError, match=f"^a GPU was asked for, but PyTorch .* on {platform.node()} {why}; "
    ) as caught:
        device.require_gpu()
    assert "\n" not in str(caught.value)


SCRIPTS = ["train", "sample", "fid", "floor", "ceiling", "exact", "reference_stats"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_was_given_a_gpu_never_computes_on_the_cpu(monkeypatch, name):
    """Nothing is read before the refusal: the arguments name files that do not exist."""
    path = ROOT / f"workflow/scripts/{name}.py"
    needed = re.findall(r'"(--[a-z-]+)", required=True', path.read_text())
    values = {"--draw": "0", "--implementation": "fast", "--split": "train"}
    arguments = [word for option in needed for word in (option, values.get(option, "missing"))]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", [path.name, *arguments, "--gpu"])
    with pytest.raises(UserError, match=r"^a GPU was asked for"):
        runpy.run_path(str(path))["main"]()


def test_a_network_is_compiled_where_asked_into_a_cache_that_clones_share(monkeypatch, tmp_path):
    monkeypatch.setenv("TARGETWISE_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_cache_dir())  # as the import of diffusers leaves it
    network = nn.Linear(2, 2)
    device.compile_network(network, CPU, {"compile": {"cpu": False, "cuda": True}, "channels_last": True})
    assert network._compiled_call_impl is None and os.environ["TORCHINDUCTOR_CACHE_DIR"] == default_cache_dir()
    device.compile_network(network, CPU, {"compile": {"cpu": True, "cuda": False}, "channels_last": True})
    assert network._compiled_call_impl is not None
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_only_a_gpu_replays_a_network_as_a_graph_and_only_where_it_may(
    monkeypatch, tmp_path, kind, graphs, channels_last
):
    monkeypatch.setenv("TARGETWISE_CACHE", str(tmp_path))
    asked, network = {}, nn.Linear(2, 2)
    monkeypatch.setattr(network, "compile", asked.update)
    options = {"compile": {"cpu": True, "cuda": True}, "channels_last": channels_last}
    device.compile_network(network, torch.device(kind), options, graphs=graphs)
    on_gpu = {"triton.cudagraphs": graphs, "force_layout_optimization": channels_last}
    assert asked == {"backend": device.COMPILER, "options": on_gpu if kind == "cuda" else None}


def test_pytorch_knows_what_its_compiler_is_asked_for_on_a_gpu(monkeypatch, tmp_path):
    """It refuses a name that it does not know."""
    monkeypatch.setenv("TARGETWISE_CACHE", str(tmp_path))
    options = {"compile": {"cpu": True, "cuda": True}, "channels_last": True}
    device.compile_network(nn.Linear(2, 2), torch.device("cuda"), options, graphs=True)


def test_a_cache_for_compiled_networks_that_the_user_names_is_used(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "own"))
    device.compile_network(nn.Linear(2, 2), CPU, {"compile": {"cpu": True, "cuda": False}, "channels_last": True})
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "own")
