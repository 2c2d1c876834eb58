"""diffusers' ``UNet2DModel`` with labels: an embedding of each label is added to that of the time step.

Nichol & Dhariwal 2021, arXiv:2102.09672. Label K stands for none. Options, and all other initial weights of a seed, are
those of unet.
"""

import torch
from diffusers.models.unets.unet_2d import UNet2DModel

from targetwise.errors import UserError


class UNet(UNet2DModel):
    """The U-Net as a function (B, C, H, W), (B,), (B,) → (B, C', H, W)."""

    def forward(self, x, timesteps, labels=None):
        """Return the output for noisy images ``x`` at ``timesteps``."""
        return super().forward(x, timesteps, labels, return_dict=False)[0]


def build(options, *, in_channels, out_channels, image_size, classes=None):
    """Build the network."""
    levels = range(len(options["channels"]))
    if image_size % 2 ** levels[-1]:
        raise UserError(
            f"images of {image_size} pixels cannot be halved {levels[-1]} times, for {len(levels)} levels"
        )
    attention = ["Attn" if level in options["attention"] else "" for level in levels]
    network = UNet(
        sample_size=image_size,
        in_channels=in_channels,
        out_channels=out_channels,
        block_out_channels=tuple(options["channels"]),
        down_block_types=tuple(f"{attended}DownBlock2D" for attended in attention),
        up_block_types=tuple(f"{attended}UpBlock2D" for attended in reversed(attention)),
        layers_per_block=options["layers_per_block"],
        attention_head_dim=8,
        norm_num_groups=32,
        norm_eps=1e-6,
        act_fn="silu",
        flip_sin_to_cos=False,
        freq_shift=1,
        downsample_padding=0,
        dropout=0.0,
    )
    if classes is not None:  # here, and not by num_class_embeds, so that it is the last thing that is drawn
        network.class_embedding = torch.nn.Embedding(classes + 1, 4 * options["channels"][0])
    return network
