"""Any field of the recipe can be an axis: from the configuration alone, by a variant, a sweep or named samplings."""

import copy
import re

import pytest

from targetwise import cells
from targetwise.errors import UserError
from targetwise.recipe import config, variants
from targetwise.recipe.schema import effects

SWEEP = {"target": "x0", "each": {"training.learning_rate": [1e-4, 2e-4]}}


def specification(study, name, file="cell.json"):
    """Return one of a variant's files, of its first seed."""
    found = cells.specifications(study)
    cell = next(cell for cell in cells.grid(study) if cell.parameterization == name)
    return found[cell.folder / file]


def leaves(content, place=""):
    for key, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value


def differing(one, other):
    """Return the fields in which two specifications differ, with both values."""
    one, other = dict(leaves(one)), dict(leaves(other))
    return {key: (one.get(key), other.get(key)) for key in one | other if one.get(key) != other.get(key)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("training.learning_rate", 5e-3),
        ("training.steps", 7),
        ("training.ema_decay", 0.5),
        ("training.precision.cpu", "bf16"),
        ("data.horizontal_flip", True),
    ],
)
def test_a_variant_sets_any_field_of_its_training_and_nothing_else(study, field, value):
    study["parameterizations"] = {"mine": {"target": "v", field: value}}
    study["grid"]["parameterizations"] = ["v", "mine"]
    study = config.validate(study)
    found = differing(specification(study, "v"), specification(study, "mine"))
    del found["cell.parameterization"]
    assert list(found) == [field]
    assert found[field][1] == value


def test_a_variants_network_is_laid_over_each_scale_and_its_path_over_the_studys(study):
    study["parameterizations"] = {"mine": {"target": "v", "network": {"width": 64}, "diffusion.timesteps": 500}}
    study["grid"]["parameterizations"] = ["mine"]
    study = config.validate(study)
    made = specification(study, "mine")
    assert made["network"] == {**study["scales"]["tiny"], "width": 64}
    assert made["variant"]["diffusion"] == {**study["diffusion"], "timesteps": 500}


def test_a_field_that_is_not_set_is_in_no_specification(study):
    """So that a result of before there was such a field stays valid."""
    study["parameterizations"] = {
        "mine": {"target": "v", "diffusion.zero_terminal_snr": True, "normalize_weight": True},
        "off": {"target": "v", "normalize_weight": False},
    }
    study["grid"]["parameterizations"] = ["v", "mine", "off"]
    plain, mine, off = (specification(config.validate(study), name)["variant"] for name in ("v", "mine", "off"))
    assert differing(plain, mine) == {"diffusion.zero_terminal_snr": (None, True), "normalize_weight": (None, True)}
    assert off == plain


def test_nested_and_dotted_spellings_mean_the_same(study):
    nested, dotted = copy.deepcopy(study), copy.deepcopy(study)
    nested["parameterizations"] = {"v": {"training": {"steps": 7, "precision": {"cpu": "bf16"}}}}
    dotted["parameterizations"] = {"v": {"training.steps": 7, "training.precision.cpu": "bf16"}}
    mixed = {**study, "parameterizations": {"v": {"training": {"steps": 7}, "training.precision.cpu": "bf16"}}}
    before = copy.deepcopy(mixed)
    assert config.validate(nested) == config.validate(dotted) == config.validate(mixed)
    assert mixed == before


def test_a_sweep_is_one_variant_for_each_combination(study):
    study["parameterizations"]["lr"] = {
        **SWEEP,
        "each": {"training.learning_rate": [1e-4, 2], "diffusion.schedule": ["linear", "cosine"]},
    }
    study["grid"]["parameterizations"] = ["v", "lr"]
    study = config.validate(study)
    names = ["lr_0p0001_linear", "lr_0p0001_cosine", "lr_2_linear", "lr_2_cosine"]
    assert study["grid"]["parameterizations"] == ["v", *names]
    made = specification(study, "lr_0p0001_cosine")
    assert (made["training"]["learning_rate"], made["variant"]["target"]) == (1e-4, "x0")
    assert made["variant"]["diffusion"]["schedule"] == "cosine"
    assert config.validate(study) == study, "what is spelled out stays as it is"


def test_a_sweep_may_be_over_targets_and_over_their_constants(study):
    study["parameterizations"] = {
        "space": {"target": "x0", "each": {"loss_space": ["v", "epsilon"]}},
        "k": {"target": "v", "each": {"parameters.k": [0.5, -1]}},
    }
    study["grid"]["parameterizations"] = ["space", "k"]
    study = config.validate(study)
    assert study["grid"]["parameterizations"] == ["space_v", "space_epsilon", "k_0p5", "k_m1"]
    assert specification(study, "space_epsilon")["variant"]["loss_space"] == "epsilon"
    assert specification(study, "k_m1")["variant"]["parameters"] == {"k": -1}


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"training.stepps": 5}, "unknown key 'stepps' in parameterizations.v.training; did you mean 'steps'?"),
        ({"training.steps": 0}, "parameterizations.v.training.steps is 0; it must be at least 1"),
        ({"training.steps": 5, "training": {"steps": 6}}, "parameterizations.v sets training twice"),
        ({"each": {"training.steps": []}}, "parameterizations.v.each.training.steps is []; it must hold at least 1"),
        ({"each": {"training.steps": [1, 1]}}, "parameterizations.v.each.training.steps names 1 twice"),
        ({"each": {"training.steps": 3}}, "parameterizations.v.each.training.steps is 3; it must be a list"),
        ({"each": {"training.steps": [1, 0]}}, "parameterizations.v_0.training.steps is 0; it must be at least 1"),
        (
            {"each": {"trainin.steps": [1]}},
            "unknown key 'trainin' in parameterizations.v_1; did you mean 'training'?",
        ),
        ({"data.dataset": "cifar10"}, "parameterizations.v.data.dataset is 'cifar10'; a study has one data set"),
        ({"network.attention": [5]}, "parameterizations.v.network.attention is [5], but the levels are 0 to 3"),
        ({"diffusion.beta_end": 1e-5}, "parameterizations.v: diffusion.beta_start is 0.0001; it must be at most"),
        ({"sampling.steps": 600}, "parameterizations.v: sampling.steps is 600; with spacing leading it would begin"),
    ],
)
def test_a_mistake_in_a_variant_is_named_with_its_place(study, definition, message):
    study["parameterizations"] = {"v": definition}
    study["grid"] |= {"parameterizations": ["v"], "scales": ["small"]}
    with pytest.raises(UserError, match=re.escape(message)):
        config.validate(study)


def test_two_variants_of_one_name_are_refused(study):
    study["parameterizations"] = {"a": SWEEP, "a_0p0001": {"target": "v"}}
    with pytest.raises(UserError, match=r"parameterizations.a_0p0001 gives the name 'a_0p0001' a second time"):
        config.validate(study)


# --- samplings


@pytest.fixture
def two_samplers(study):
    study["samplings"] = {"few": {"steps": 10}, "many": {"steps": 50, "draws": 2}}
    study["grid"]["samplings"] = ["few", "many"]
    return config.validate(study)


def test_without_names_there_is_one_sampling_called_after_sampler_and_steps(study):
    assert cells.draws(study, "v") == [cells.Draw("ddim-50", 0)]


def test_named_samplings_share_one_training(two_samplers, study):
    named = [draw.name for draw in cells.draws(two_samplers, "v")]
    assert named == ["few/draw0", "many/draw0", "many/draw1"]
    assert specification(two_samplers, "v") == specification(study, "v")
    files = cells.specifications(two_samplers)
    steps = {path.name: content["steps"] for path, content in files.items() if path.name.startswith("sampling-")}
    assert steps == {"sampling-few.json": 10, "sampling-many.json": 50}


@pytest.mark.parametrize(("field", "value"), [("draws", 3), ("batch", 7)])
def test_another_draw_or_batch_puts_no_sample_out_of_date(study, field, value):
    before = copy.deepcopy(cells.specifications(study))
    study["sampling"][field] = value
    after = cells.specifications(study)
    assert [path.name for path in before if before[path] != after[path]] == ["study.json"]


def test_another_sampler_puts_no_other_out_of_date(two_samplers):
    before = copy.deepcopy(cells.specifications(two_samplers))
    two_samplers["samplings"]["third"] = {"steps": 20}
    two_samplers["grid"]["samplings"].append("third")
    after = cells.specifications(config.validate(two_samplers))
    assert {path.name for path in after if before.get(path) != after[path]} == {"study.json", "sampling-third.json"}


def test_constants_of_a_sampler_are_an_axis_and_no_others_key_holds_them(two_samplers):
    before = copy.deepcopy(cells.specifications(two_samplers))
    two_samplers["samplings"] |= {"half": {"sampler": "ancestral", "parameters.eta": 0.5}}
    two_samplers["grid"]["samplings"].append("half")
    after = cells.specifications(config.validate(two_samplers))
    new = {path.name: content for path, content in after.items() if before.get(path) != content}
    assert set(new) == {"study.json", "sampling-half.json"}
    assert new["sampling-half.json"]["parameters"] == {"eta": 0.5}
    assert "parameters" not in next(each for path, each in after.items() if path.name == "sampling-few.json")


def test_a_sampling_that_is_not_defined_is_named(two_samplers):
    two_samplers["grid"]["samplings"] = ["fow"]
    with pytest.raises(UserError, match=r"grid.samplings names 'fow'; did you mean 'few'\?"):
        config.validate(two_samplers)


def test_every_field_says_what_it_decides_and_speed_puts_no_result_out_of_date(study):
    """A field that is marked as speed is in no file whose change makes a result again, and any other field is."""
    for section in ("data", "diffusion", "training", "sampling", "metric"):
        marks = effects(section)
        assert set(study[section]) <= set(marks) and set(marks.values()) <= {"result", "rounding", "speed"}
        kept = variants.decisive(section, study[section])
        assert set(study[section]) - set(kept) == {name for name, mark in marks.items() if mark == "speed"}
    assert [name for name, mark in effects("training").items() if mark == "speed"] == ["save_every_seconds"]
    assert [name for name, mark in effects("sampling").items() if mark == "speed"] == ["draws", "batch"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"parameterizations": {"p": {"target": "v", "schedule": "linear", "diffusion.schedule": "cosine"}}},
            "parameterizations.p sets diffusion.schedule twice; leave one out",
        ),
        (
            {
                "parameterizations": {"p": {"target": "v", "training.global_batch": 32}},
                "scales": {"tiny": {"global_batch": 16}},
            },
            "parameterizations.p and scales.tiny both set the global batch; leave one out",
        ),
        (
            {
                "parameterizations": {"p": {"target": "v", "sampling.steps": 20}},
                "samplings": {"few": {"steps": 10}},
                "grid": {"samplings": ["few"]},
            },
            "parameterizations.p and samplings.few both set sampling.steps; leave one out",
        ),
        (
            {"parameterizations": {"p": {"target": "v", "parameters": {"beta_end": 0.05}}}},
            "parameters holds the name 'beta_end', which is a field of diffusion's own",
        ),
    ],
)
def test_no_field_has_two_owners(study, changes, message):
    """Else the name of a sweep, or the table, would promise a value that another one overrides."""
    with pytest.raises(UserError, match=re.escape(message)):
        config.validate(config.merge(study, changes))


def test_a_study_can_be_laid_over_the_configuration_that_it_was_spelled_out_from(study):
    """As every hint does that names results/<study>/study.json."""
    study["parameterizations"]["lr"] = SWEEP
    study["grid"]["parameterizations"] = ["v", "lr"]
    spelled_out = config.validate(study)
    assert config.validate(config.merge(study, spelled_out)) == spelled_out
    other = config.merge(study, spelled_out)
    other["parameterizations"]["lr_0p0001"]["weighting"] = "snr"
    with pytest.raises(UserError, match="gives the name 'lr_0p0001' a second time"):
        config.validate(other)


def test_another_network_than_the_scales_takes_none_of_its_options(study):
    mlp = {"network": "mlp", "width": 64, "layers": 2}
    study["parameterizations"] = {"mine": {"target": "v", "network": mlp}}
    study["grid"] |= {"parameterizations": ["mine"], "scales": ["small"]}
    assert specification(config.validate(study), "mine")["network"] == mlp
