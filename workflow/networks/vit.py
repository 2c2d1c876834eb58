"""A plain transformer over patches of pixels, as in JiT (Li & He 2025, arXiv:2511.13720), with sine-cosine positions.

Time step and label set shift, scale and gate of every block (adaLN-Zero, Peebles & Xie 2023, section 3.2); the MLPs are
SwiGLU's, of about the same parameters as one of 4·width. Label K stands for none. Options:

- ``width``, ``depth`` and ``heads`` of the blocks;
- ``patch``: its side in pixels. A patch of C'·p² numbers comes out of ``width`` ones by one affine map, so that all
  outputs of a time step lie in ``width`` dimensions a patch, whatever is learned;
- ``bottleneck``: d of an embedding p²·C → d → width with nothing in between; without it p²·C → width;
- ``skip``: add M(t)·x_t, with M (C', C) a linear function of the time step, 0 at first. It goes around all of that.

The network outputs 0 at first. JiT's rotary positions, norms of queries and keys, and class tokens are left out.
"""

from itertools import pairwise

from diffusers.models.embeddings import get_2d_sincos_pos_embed, get_timestep_embedding
from torch import nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, scaled_dot_product_attention, silu

from targetwise.errors import UserError

EXAMPLE = "{width: 128, depth: 4, heads: 4, patch: 4}"


class Block(nn.Module):
    """Attention and MLP, (B, N, width), with the six modulations that ``told`` (B, width) sets."""

    def __init__(self, width, heads):
        """Build both."""
        super().__init__()
        self.heads, hidden = heads, 8 * width // 3
        self.query_key_value, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gate_and_value, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x, told):
        """Return tokens x, attended and transformed."""
        modulation = self.modulation(silu(told))[:, None].chunk(6, dim=-1)
        for branch, shift, scale, gate in zip(
            (self.attended, self.transformed), modulation[::3], modulation[1::3], modulation[2::3], strict=True
        ):
            x = x + gate * branch((1 + scale) * normalized(x) + shift)
        return x

    def attended(self, x):
        """Return self-attention of x."""
        shape = (*x.shape[:2], 3, self.heads, -1)
        query, key, value = self.query_key_value(x).view(shape).permute(2, 0, 3, 1, 4)
        return self.joined(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))

    def transformed(self, x):
        """Return SwiGLU's MLP of x (Shazeer 2020, arXiv:2002.05202)."""
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.down(silu(gate) * value)


class ViT(nn.Module):
    """The transformer as a function (B, C, H, W), (B,), (B,) → (B, C', H, W)."""

    def __init__(self, options, in_channels, out_channels, size, classes):
        """Build it for images of ``size`` × ``size``."""
        super().__init__()
        width, self.patch, bottleneck = options["width"], options["patch"], options.get("bottleneck")
        self.shape = (out_channels, in_channels)
        pixels = in_channels * self.patch**2
        parts = [pixels, width] if bottleneck is None else [pixels, bottleneck, width]
        self.embedding = nn.Sequential(*(nn.Linear(*each) for each in pairwise(parts)))
        # On the network's device from the start: a copy at every call would make the host wait for a GPU.
        positions = get_2d_sincos_pos_embed(width, size // self.patch, base_size=size // self.patch, output_type="pt")
        self.register_buffer("positions", positions.float(), persistent=False)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, options["heads"]) for _ in range(options["depth"]))
        self.modulation = nn.Linear(width, 2 * width)
        self.skip = nn.Linear(width, out_channels * in_channels) if options.get("skip") else None
        self.last = nn.Linear(width, out_channels * self.patch**2)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in (*(block.modulation for block in self.blocks), self.modulation, self.skip, self.last):
            if module is not None:
                nn.init.zeros_(module.weight)
        if classes is not None:  # the last thing that is drawn
            self.labels = nn.Embedding(classes + 1, width)
            nn.init.normal_(self.labels.weight, std=0.02)

    def forward(self, x, timesteps, labels=None):
        """Return the output for noisy images ``x`` at ``timesteps``."""
        told = self.time(get_timestep_embedding(timesteps, self.modulation.in_features).to(x.dtype))
        if labels is not None:
            told = told + self.labels(labels)
        tokens = self.embedding(patchify(x, self.patch)) + self.positions
        for block in self.blocks:
            tokens = block(tokens, told)
        shift, scale = self.modulation(silu(told))[:, None].chunk(2, dim=-1)
        tokens = self.last((1 + scale) * normalized(tokens) + shift)
        output = unpatchify(tokens, self.patch, x.shape[-1])
        if self.skip is None:
            return output
        mixing = self.skip(silu(told)).view(-1, *self.shape)
        return output + (mixing @ x.flatten(2)).view_as(output)


def normalized(x):
    """Return x over its root mean square (RMS norm); unlike layer norm it leaves all dimensions of the width."""
    return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


def patchify(x, patch):
    """Return the patches of images (B, C, H, H), row by row, (B, (H/p)², C·p²)."""
    return pixel_unshuffle(x, patch).flatten(2).transpose(1, 2)


def unpatchify(patches, patch, size):
    """Return the images (B, C, H, H) that patches (B, (H/p)², C·p²) are of."""
    return pixel_shuffle(patches.transpose(1, 2).unflatten(2, (size // patch, -1)), patch)


def build(options, *, in_channels, out_channels, image_size, classes=None):
    """Build the network."""
    required, optional = {"width", "depth", "heads", "patch"}, {"bottleneck", "skip"}
    if not required <= set(options) <= required | optional:
        raise UserError(
            f"network vit takes width, depth, heads and patch, and also bottleneck and skip, e.g. {EXAMPLE}; "
            f"not {options}"
        )
    if options["width"] % 4 or options["width"] % options["heads"]:
        raise UserError(
            f"network vit: width is {options['width']}; it must be a multiple of 4, for the positions, and of heads, "
            f"{options['heads']}"
        )
    if image_size % options["patch"]:
        raise UserError(
            f"network vit: patch is {options['patch']}, but images of {image_size} pixels are not whole patches of it"
        )
    return ViT(options, in_channels, out_channels, image_size, classes)
