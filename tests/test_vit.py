"""The transformer of workflow/networks/vit.py: patches, what bounds its output, its skip, labels and options."""

import copy

import pytest
import torch
from helpers import EXAMPLE

from targetwise.diffusion.network import build
from targetwise.errors import UserError
from targetwise.recipe import config as configuration
from targetwise.recipe import kinds

VIT = {"network": "vit", "width": 16, "depth": 2, "heads": 2, "patch": 4}
SHAPE = {"in_channels": 1, "out_channels": 1, "image_size": 8}


def made(seed=0, classes=None, shape=SHAPE, **options):
    return build({**VIT, **options}, **shape, seed=seed, classes=classes)


def awake(network):
    """Return a network with other weights than at the start, where its output is 0."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    return network


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def steps(*values):
    return torch.tensor(values)


@pytest.mark.parametrize(
    ("size", "patch", "channels", "out_channels"), [(8, 4, 1, 1), (8, 8, 3, 6), (6, 2, 3, 3), (5, 1, 1, 2)]
)
def test_an_image_goes_in_and_a_target_comes_out(size, patch, channels, out_channels):
    shape = {"in_channels": channels, "out_channels": out_channels, "image_size": size}
    network = awake(made(shape=shape, patch=patch, skip=True))
    x = noise(2, channels, size, size)
    output = network(x, steps(0, 999))
    assert output.shape == (2, out_channels, size, size) and output.dtype == torch.float32
    torch.testing.assert_close(network(x[:1], steps(0))[0], output[0])  # no image sees another
    assert not torch.allclose(network(x, steps(1, 999))[0], output[0])  # the time step is heard


def test_its_output_is_zero_at_first_and_its_weights_come_from_the_seed():
    network = made(skip=True)
    assert not network(noise(3, 1, 8, 8), steps(0, 500, 999)).any()
    first, again, other = (made(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.0.weight"], other["embedding.0.weight"])


def test_patches_are_those_of_the_image_row_by_row_and_put_together_are_the_image():
    vit = kinds.load("networks", "vit")
    x = torch.arange(2 * 3 * 6 * 6.0).view(2, 3, 6, 6)
    patches = vit["patchify"](x, 2)
    assert patches.shape == (2, 9, 12)
    assert torch.equal(patches[1, 5], x[1, :, 2:4, 4:6].flatten())
    assert torch.equal(vit["unpatchify"](patches, 2, 6), x)


def test_a_patch_comes_out_of_width_dimensions_whatever_is_learned():
    """64 pixels from 16 numbers by an affine map: outputs less their mean have rank 16, and with a patch of 4, 64."""
    x, t = noise(400, 1, 8, 8), torch.full((400,), 300)
    for patch, rank in ((8, 16), (4, 64)):
        with torch.no_grad():
            output = awake(made(patch=patch))(x, t).flatten(1).double()
        values = torch.linalg.svdvals(output - output.mean(0))
        assert (values > 1e-4 * values[0]).sum() == rank


def test_noise_cannot_come_out_of_fewer_dimensions_than_it_has():
    """White noise of D dimensions estimated in H of them: 1 − H/D is missed, also by the best affine map."""
    torch.manual_seed(0)
    network = awake(made(patch=8))
    x, t = noise(4000, 1, 8, 8), torch.zeros(4000, dtype=torch.int64)
    with torch.no_grad():
        output = network(x, t).flatten(1)
    solved = torch.linalg.lstsq(torch.cat([output, torch.ones(4000, 1)], 1), x.flatten(1), driver="gelsd").solution
    error = (torch.cat([output, torch.ones(4000, 1)], 1) @ solved - x.flatten(1)).square().mean()
    assert error > (1 - 16 / 64) * 0.98


def test_the_skip_passes_the_input_on_around_the_width():
    """With M = [[1], [2]] all of the noise comes back twice, where the blocks could pass a quarter of it."""
    network = made(shape={**SHAPE, "out_channels": 2}, patch=8, skip=True)
    x = noise(5, 1, 8, 8)
    with torch.no_grad():
        network.skip.bias.copy_(torch.tensor([1.0, 2.0]))
    output = network(x, steps(0, 1, 2, 3, 999))
    torch.testing.assert_close(output, torch.cat([x, 2 * x], 1))
    with torch.no_grad():
        network.skip.weight.normal_(generator=torch.Generator().manual_seed(3))
    factors = network(x, steps(0, 1, 2, 3, 999)) / torch.cat([x, x], 1)
    torch.testing.assert_close(factors.std((2, 3)), torch.zeros(5, 2), atol=1e-3, rtol=0)  # one factor a channel
    assert len(factors[:, 0, 0, 0].round(decimals=3).unique()) == 5  # and a time step
    assert made(patch=8).skip is None
    network, t = awake(network), steps(0, 1, 2, 3, 999)  # and it is added to what the blocks say
    with_skip = network(x, t)
    network.skip.weight.data.zero_()
    network.skip.bias.data.copy_(torch.tensor([-1.0, 3.0]))
    negative = network(x, t)
    network.skip = None
    torch.testing.assert_close(negative - network(x, t), torch.cat([-x, 3 * x], 1))
    assert network(x, t).abs().mean() > 0.01 and not torch.allclose(with_skip, negative)


def test_a_block_is_attention_and_swiglu_each_shifted_scaled_and_gated():
    """By torch's own multi-head attention with the same weights, and the definitions."""
    block = awake(made()).blocks[0]
    attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)
    attention.load_state_dict(
        {
            "in_proj_weight": block.query_key_value.weight,
            "in_proj_bias": block.query_key_value.bias,
            "out_proj.weight": block.joined.weight,
            "out_proj.bias": block.joined.bias,
        }
    )
    x, told = noise(3, 4, 16), noise(3, 16)
    shift, scale, gate, shift_2, scale_2, gate_2 = block.modulation(told * told.sigmoid()).view(3, 1, 6, 16).unbind(2)
    moved = (1 + scale) * torch.nn.RMSNorm(16, eps=1e-6)(x) + shift
    expected = x + gate * attention(moved, moved, moved)[0]
    moved = (1 + scale_2) * torch.nn.RMSNorm(16, eps=1e-6)(expected) + shift_2
    first, second = block.gate_and_value(moved).split(42, dim=-1)  # ⌊8·16/3⌋
    expected = expected + gate_2 * block.down(first * first.sigmoid() * second)
    torch.testing.assert_close(block(x, told), expected, atol=1e-5, rtol=1e-4)


def test_a_bottleneck_has_its_size_and_is_linear():
    def embedded(**options):
        layers = made(patch=8, **options).embedding
        assert all(isinstance(layer, torch.nn.Linear) for layer in layers)
        return [tuple(layer.weight.shape) for layer in layers]

    assert embedded() == [(16, 64)]
    assert embedded(bottleneck=3) == [(3, 64), (16, 3)]
    map_ = made(patch=8, bottleneck=3).embedding(torch.eye(64))
    assert torch.linalg.matrix_rank(map_, rtol=1e-5) == 3


def test_attention_lets_patches_see_one_another_and_positions_tell_them_apart():
    network, t = awake(made()), steps(10)
    x = noise(1, 1, 8, 8)
    changed = x.clone()
    changed[..., :4, :4] += 1
    assert not torch.allclose(network(x, t)[..., 4:, 4:], network(changed, t)[..., 4:, 4:])
    tiled = noise(1, 1, 4, 4).tile(1, 1, 2, 2)
    output = network(tiled, t)
    assert not torch.allclose(output[..., :4, :4], output[..., 4:, 4:])


def test_labels_are_heard_and_change_no_other_weight():
    network = awake(made(classes=10))
    assert network.labels.weight.shape == (11, 16)
    x, t = noise(1, 1, 8, 8), steps(500)
    outputs = torch.stack([network(x, t, steps(label)) for label in (0, 9, 10)])
    assert not torch.allclose(outputs[0], outputs[1]) and not torch.allclose(outputs[1], outputs[2])
    plain, told = made().state_dict(), made(classes=10).state_dict()
    assert set(told) - set(plain) == {"labels.weight"}
    assert all(torch.equal(plain[name], told[name]) for name in plain)


def test_it_learns_a_target_that_depends_on_position_and_time():
    """4 seconds."""
    torch.manual_seed(0)
    network = made(width=32)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    wanted = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    for _ in range(300):
        x, t = torch.randn(32, 1, 8, 8), torch.randint(0, 1000, (32,))
        loss = (network(x, t) - wanted * (t / 1000).view(-1, 1, 1, 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.01  # E t²·E w² = 0.115 for an output of 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"width": 18},
            r"^network vit: width is 18; it must be a multiple of 4, for the positions, and of heads, 2$",
        ),
        ({"width": 16, "heads": 3}, r"^network vit: width is 16; it must be a multiple .* and of heads, 3$"),
        ({"patch": 3}, r"^network vit: patch is 3, but images of 8 pixels are not whole patches of it$"),
        (
            {"layers": 3},
            r"^network vit takes width, depth, heads and patch, and also bottleneck and skip, e\.g\. \{wid",
        ),
    ],
)
def test_options_that_do_not_fit_are_said_in_one_line(options, message):
    with pytest.raises(UserError, match=message):
        made(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 0}, r"scales\.tiny\.heads is 0; it must be at least 1"),
        ({"depth": 1.5}, r"scales\.tiny\.depth is 1\.5; it must be a whole number"),
        ({"width": 18}, r"scales\.tiny\.width is 18; it must be a multiple of 4"),
        ({"bottleneck": 0}, r"scales\.tiny\.bottleneck is 0; it must be at least 1"),
        ({"skip": 1}, r"scales\.tiny\.skip is 1; it must be true or false"),
        ({"bottelneck": 2}, r"unknown key 'bottelneck' in scales\.tiny; did you mean 'bottleneck'\?"),
    ],
)
def test_options_of_a_wrong_kind_are_refused_while_the_configuration_is_read(options, message):
    study = copy.deepcopy(EXAMPLE)
    study["scales"]["tiny"] = {**VIT, **options}
    with pytest.raises(UserError, match=message):
        configuration.validate(study)
