"""The network is that of the reference task, and its weights come from the seed alone."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers import DIFFUSERS_UNET, ROOT

from targetwise import cells
from targetwise.diffusion.network import build
from targetwise.errors import UserError
from targetwise.recipe import config as configuration
from targetwise.recipe import kinds

TINY = {"channels": [32, 64], "attention": [1], "layers_per_block": 1}
SHAPE = {"in_channels": 1, "out_channels": 1, "image_size": 8}


def weights(scale=TINY, seed=0, **shape):
    return build(scale, **{**SHAPE, **shape}, seed=seed).state_dict()


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("scale", "millions"), [("small", 8.952), ("medium", 35.746), ("large", 142.861)])
def test_the_scales_are_those_of_the_reference_task(scale, millions):
    """Those of the reference task, in the configuration as it lies in the repository."""
    definition = configuration.load(base=ROOT / "config.yaml")["scales"][scale]
    with torch.device("meta"):
        network = build(definition, in_channels=3, out_channels=3, image_size=32, seed=0)
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 3) == millions
    assert network.config.down_block_types == (
        "DownBlock2D",
        "AttnDownBlock2D",
        "DownBlock2D",
        "DownBlock2D",
    )
    assert network.config.up_block_types == ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    assert (network.config.norm_num_groups, network.config.norm_eps) == (32, 1e-6)
    assert (network.config.flip_sin_to_cos, network.config.freq_shift) == (False, 1)
    assert (network.config.downsample_padding, network.config.dropout) == (0, 0.0)
    assert (network.config.attention_head_dim, network.config.act_fn) == (8, "silu")


def test_weights_come_from_the_seed_alone():
    torch.manual_seed(1)
    first = weights()
    torch.manual_seed(2)
    assert equal(weights(), first)
    assert not equal(weights(seed=1), first)


def test_building_moves_no_global_stream():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    weights()
    assert torch.equal(torch.rand(3), expected)


def test_more_output_channels_start_alike_but_for_the_last_layer():
    """Parameterizations of one seed start from one network, also where one of them has two heads."""
    one, two = weights(), weights(out_channels=2)
    different = {name for name in one if one[name].shape != two[name].shape or not torch.equal(one[name], two[name])}
    assert different == {"conv_out.weight", "conv_out.bias"}


@pytest.mark.parametrize(("channels", "out_channels"), [(1, 1), (3, 3), (3, 6)])
def test_an_image_goes_in_and_a_target_comes_out(channels, out_channels):
    network = build(TINY, in_channels=channels, out_channels=out_channels, image_size=8, seed=0)
    output = network(torch.zeros(2, channels, 8, 8), torch.tensor([0, 999]))
    assert output.shape == (2, out_channels, 8, 8)
    assert output.dtype == torch.float32
    assert not torch.equal(output[0], output[1])  # the time step is heard


def test_attention_is_where_the_scale_says():
    def attended(levels):
        names = weights({**TINY, "attention": levels})
        return {name.split(".")[1] for name in names if name.startswith("down_blocks") and "attentions" in name}

    assert attended([]) == set()
    assert attended([0]) == {"0"}
    assert attended([0, 1]) == {"0", "1"}


@pytest.mark.parametrize(("size", "levels"), [(8, 5), (10, 3), (7, 2)])
def test_images_that_cannot_be_halved_are_refused(size, levels):
    scale = {"channels": [32] * levels, "attention": [], "layers_per_block": 1}
    with pytest.raises(UserError, match=f"images of {size} pixels cannot be halved {levels - 1} times"):
        build(scale, in_channels=1, out_channels=1, image_size=size, seed=0)


def test_one_level_is_enough():
    scale = {"channels": [32], "attention": [], "layers_per_block": 1}
    network = build(scale, in_channels=1, out_channels=1, image_size=7, seed=0)
    assert network(torch.zeros(1, 1, 7, 7), torch.tensor([3])).shape == (1, 1, 7, 7)


def test_the_digits_scale_builds():
    scale = configuration.load([Path("config/digits.yaml")])["scales"]["tiny"]
    assert sum(value.numel() for value in weights(scale).values()) < 2e6


# --- other networks ------------------------------------------------------------------------------------------------

MLP = {"network": "mlp", "width": 16, "layers": 2}


def test_the_unet_is_diffusers_own():
    """The same names and, from one seed, the same bits as UNet2DModel built by hand, and the same output."""
    from diffusers import UNet2DModel

    torch.manual_seed(3)
    expected = UNet2DModel(**DIFFUSERS_UNET, dropout=0.0)
    found = build({**TINY, "network": "unet"}, in_channels=1, out_channels=2, image_size=8, seed=3)
    assert equal(found.state_dict(), expected.state_dict())
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999])
    assert torch.equal(found(x, t), expected(x, t).sample)


@pytest.mark.parametrize(("size", "channels", "out_channels"), [(8, 1, 1), (7, 3, 6), (1, 1, 2)])
def test_an_mlp_takes_images_of_any_size(size, channels, out_channels):
    network = build(MLP, in_channels=channels, out_channels=out_channels, image_size=size, seed=0)
    x = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in network.parameters():  # what depends on the time step starts at 0
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    output = network(x, torch.tensor([0, 999]))
    assert output.shape == (2, out_channels, size, size)
    torch.testing.assert_close(network(x[:1], torch.tensor([0]))[0], output[0])  # no image sees another
    assert not torch.allclose(network(x, torch.tensor([1, 999]))[0], output[0])  # the time step is heard


def test_an_mlp_learns_a_target_that_depends_on_time():
    """ε of x_t = ε·(1 + t/1000) with one pixel: it is read off only by who hears both x and t."""
    torch.manual_seed(0)
    network = build({**MLP, "width": 64}, in_channels=1, out_channels=1, image_size=1, seed=0)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(400):
        noise, t = torch.randn(64, 1, 1, 1), torch.randint(0, 1000, (64,))
        loss = (network(noise * (1 + t.view(-1, 1, 1, 1) / 1000), t) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02


@pytest.mark.parametrize("options", [{"width": 15, "layers": 1}, {"width": 16}, {**MLP, "channels": [32]}])
def test_an_mlp_says_in_one_line_which_options_it_takes(options):
    with pytest.raises(UserError, match=r"^network mlp takes an even width and layers, e\.g\. ") as caught:
        build({**options, "network": "mlp"}, **SHAPE, seed=0)
    assert "\n" not in str(caught.value)


def test_a_network_without_a_file_is_refused_while_the_configuration_is_read(study):
    study["scales"]["tiny"] = {**MLP, "network": "mpl"}
    with pytest.raises(
        UserError, match=r"scales.tiny.network is 'mpl', but there is no workflow/networks/mpl.py; did"
    ):
        configuration.validate(study)
    study["scales"]["tiny"] = MLP
    configuration.validate(study)


@pytest.mark.parametrize(
    ("edited", "moves"),
    [("networks/mlp", True), ("networks/unet", False), ("times/uniform", True), ("times/logit_normal", False)],
)
def test_the_files_of_its_network_and_times_are_in_a_trainings_key_and_no_other(
    study, tmp_path, monkeypatch, edited, moves
):
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    monkeypatch.chdir(tmp_path)
    (cell, *_) = cells.grid(study)
    specification = cells.specifications(study)[cell.folder / "cell.json"]
    before = cells.Keys("i" * 64).of(specification)
    with (tmp_path / f"workflow/{edited}.py").open("a") as file:
        file.write("\n# edited\n")
    assert (cells.Keys("i" * 64).of(specification) != before) == moves


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "return nn.AdaptiveAvgPool2d(1)(x[:, :1])",
            r"the network returned \(1, 1, 1, 1\) for one image; it must return",
        ),
        (
            "return x.repeat(1, 7, 1, 1)",
            r"the network returned \(1, 7, 8, 8\) for one image; it must return \(1, 1, 8, 8\)",
        ),
        ("return None", "the network returned NoneType for one image"),
        ("raise KeyError('width')", "the network fails: KeyError: 'width'"),
    ],
)
def test_a_network_that_is_no_denoiser_is_refused_when_it_is_built(tmp_path, monkeypatch, body, words):
    """A mean over the image, for one, would be broadcast by the loss, and trained with."""
    (tmp_path / "networks").mkdir()
    (tmp_path / "networks/mine.py").write_text(
        "from torch import nn\n\nclass Mine(nn.Module):\n    def forward(self, x, timesteps):\n"
        f"        {body}\n\ndef build(options, *, in_channels, out_channels, image_size):\n    return Mine()\n"
    )
    monkeypatch.setattr(kinds, "WORKFLOW", tmp_path)
    with pytest.raises(UserError, match=f"networks/mine.py: {words}"):
        build({"network": "mine"}, in_channels=1, out_channels=1, image_size=8, seed=0)
