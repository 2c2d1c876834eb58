"""diffusers' ``UNet2DModel``: residual blocks at every resolution, self-attention at some.

Ho, Jain & Abbeel 2020, appendix B. Options: ``channels`` of each level, first to last; the levels with ``attention``,
counted from 0 at full resolution; ``layers_per_block``.
"""

from diffusers.models.unets.unet_2d import UNet2DModel

from targetwise.errors import UserError


class UNet(UNet2DModel):
    """The U-Net as a function (B, C, H, W), (B,) → (B, C', H, W)."""

    def forward(self, x, timesteps):
        """Return the output for noisy images ``x`` at ``timesteps``."""
        return super().forward(x, timesteps, return_dict=False)[0]


def build(options, *, in_channels, out_channels, image_size):
    """Build the network."""
    levels = range(len(options["channels"]))
    if image_size % 2 ** levels[-1]:
        raise UserError(
            f"images of {image_size} pixels cannot be halved {levels[-1]} times, for {len(levels)} levels"
        )
    attention = ["Attn" if level in options["attention"] else "" for level in levels]
    return UNet(
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
