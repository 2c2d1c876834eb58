"""A wrong configuration ends in one line that names the key, the value and the nearest valid choice."""

import copy
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers import EXAMPLE, FILES, LINEAR, ROOT, TARGETS, stack
from hypothesis import given
from hypothesis import strategies as some
from snakemake.utils import update_config

from targetwise.diffusion.schedule import make_schedule
from targetwise.diffusion.trajectory import trajectory
from targetwise.errors import UserError
from targetwise.recipe import config as configuration
from targetwise.recipe import kinds
from targetwise.recipe.samplings import check_steps


def refusal(config):
    """Return the one line with which ``config`` is refused."""
    with pytest.raises(UserError) as caught:
        configuration.validate(config)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def put(config, place, value):
    """Set ``config``'s value at a place like ``training.steps``."""
    *above, key = place.split(".")
    for step in above:
        config = config[step]
    config[key] = value


def remove(config, place):
    *above, key = place.split(".")
    for step in above:
        config = config[step]
    del config[key]


def test_the_configurations_of_the_repository_are_valid():
    configuration.load()
    for overlay in sorted(Path("config").glob("*.yaml")):
        configuration.load(stack(overlay))


def test_what_is_valid_comes_back_unchanged_and_as_a_copy(study):
    before = copy.deepcopy(study)
    checked = configuration.validate(study)
    assert checked == before
    checked["grid"]["seeds"].append(99)
    assert study == before


# --- the closed schema ---------------------------------------------------------------------------------------------


def schemas(node, place=""):
    """Yield every schema within a schema, with its place."""
    if isinstance(node, dict):
        yield place, node
        for key, value in node.items():
            yield from schemas(value, f"{place}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from schemas(value, f"{place}[{index}]")


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "workflow/schemas").glob("*.yaml")))
def test_every_mapping_in_a_schema_is_closed(file):
    """Either its keys are listed and no others are taken, or its keys are names and its values have a schema."""
    schema = yaml.safe_load(Path("workflow/schemas", file).read_text())
    # Of a row, what a machine tells of itself; of a claim, a variant, which the configuration's schema closes.
    free = {".properties.environment", ".$defs.side"}
    for place, node in schemas(schema):
        kinds = node.get("type")
        if place.endswith(".properties") or place in free or not ("object" in (kinds or []) or "properties" in node):
            continue
        if re.search(r"\.(if|then|else)(\.|$)", place):  # these only narrow what the closed schema above them takes
            continue
        if "$ref" in node:  # closed by what it refers to
            continue
        if "properties" in node:
            assert node.get("additionalProperties") is False, place
        else:
            assert "propertyNames" in node, place
            assert isinstance(node.get("additionalProperties"), dict), place


def sections(config, place=""):
    """Yield every mapping of a configuration whose keys are fixed by the schema."""
    open_ones = {"parameterizations", "scales", "datasets", "comparison.families"}
    yield place
    for key, value in config.items():
        where = f"{place}.{key}" if place else key
        if where in open_ones:
            yield from (f"{where}.{name}" for name in value)
        elif isinstance(value, dict):
            yield from sections(value, where)


@pytest.mark.parametrize("place", list(sections(EXAMPLE)))
def test_an_unknown_key_is_refused_everywhere(study, place):
    put(study, f"{place}.bogus" if place else "bogus", 1)
    message = refusal(study)
    assert "unknown key 'bogus'" in message
    assert place in message


def leaves(config, place=""):
    for key, value in config.items():
        where = f"{place}.{key}" if place else key
        if isinstance(value, dict) and value:
            yield from leaves(value, where)
        else:
            yield where, value


NUMBERS = [
    (place, value)
    for place, value in leaves(EXAMPLE)
    if isinstance(value, int | float) and not isinstance(value, bool)
]


def test_there_are_numbers_to_try():
    assert {"training.steps", "training.learning_rate", "sampling.seed"} < {place for place, _ in NUMBERS}


NO_NUMBERS = [
    (place, value)
    for place, _ in NUMBERS
    for value in [-1, math.nan, math.inf, -math.inf, "7", None, True, [1]]
    if (place, value) != ("comparison.smallest_difference", None)  # a study may declare none
]


@pytest.mark.parametrize(("place", "value"), NO_NUMBERS, ids=repr)
def test_what_is_no_sensible_number_is_refused_everywhere(study, place, value):
    put(study, place, value)
    message = refusal(study)
    assert place in message
    assert ("empty" if value is None else repr(value)) in message


def described(schema, config, place=""):
    """Yield (place, schema, whether it must be there) of every value of a configuration, lists' items aside."""
    for key, value in config.items():
        listed = key in schema.get("properties", {})
        below = schema["properties"][key] if listed else schema["additionalProperties"]
        if "$ref" in below:
            below = configuration.merge(SCHEMA["$defs"][below["$ref"].rsplit("/", 1)[1]], below)
        where = f"{place}.{key}" if place else key
        yield where, below, listed and key in schema.get("required", [])
        if isinstance(value, dict):
            yield from described(below, value, where)


SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
DESCRIBED = list(described(SCHEMA, EXAMPLE))


@pytest.mark.parametrize("place", [place for place, schema, _ in DESCRIBED if schema.get("type") == "integer"])
def test_a_whole_number_written_with_a_point_is_refused(study, place):
    """JSON Schema takes 4.0 for an integer; a specification would say 4.0, and range() would fail much later."""
    put(study, place, 4.0)
    assert f"{place} is 4.0; it must be a whole number" in refusal(study)


@pytest.mark.parametrize("place", [place for place, _, required in DESCRIBED if required])
def test_a_missing_key_is_named(study, place):
    remove(study, place)
    assert f"{place} is missing" in refusal(study)


def test_there_are_keys_to_try():
    assert len([place for place, _, required in DESCRIBED if required]) > 40
    assert "training.steps" in [place for place, schema, _ in DESCRIBED if schema.get("type") == "integer"]


@pytest.mark.parametrize("place", ["parameterizations.v", "scales.tiny", "training", "grid", "sampling", "metric"])
def test_an_entry_left_empty_is_named(study, place):
    put(study, place, None)
    assert f"{place} is empty; it must be a mapping of keys" in refusal(study)


# --- the messages of the issue -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("training.step", 5, "unknown key 'step' in training; did you mean 'steps'? (choices: "),
        ("grid.parameterizations", ["epsilom"], "grid.parameterizations names 'epsilom'; did you mean 'epsilon'?"),
        ("grid.scales", ["tinny"], "grid.scales names 'tinny'; did you mean 'tiny'?"),
        ("grid.scales", ["huge"], "(choices: large, medium, small, tiny)"),
        ("grid.seeds", [0, 1, 0], "grid.seeds names 0 twice"),
        ("grid.parameterizations", ["v", "v"], "grid.parameterizations names 'v' twice"),
        ("grid.seeds", [0, -1], "grid.seeds.1 is -1; it must be at least 0"),
        ("grid.seeds", [2**32], "grid.seeds.0 is 4294967296; it must be at most 4294967295"),
        ("grid.seeds", [], "grid.seeds is []; it must hold at least 1"),
        ("grid.seeds", 3, "grid.seeds is 3; it must be a list"),
        ("training.learning_rate", -0.1, "training.learning_rate is -0.1; it must be greater than 0"),
        ("training.learning_rate", "2e-4", "training.learning_rate is '2e-4'; it must be a finite number, but YAML"),
        ("training.ema_decay", 1, "training.ema_decay is 1; it must be less than 1"),
        ("training.precision.cpu", "bf61", "training.precision.cpu is 'bf61'; did you mean 'bf16'?"),
        ("diffusion.schedule", "cosin", "there is no workflow/paths/cosin.py; did you mean 'cosine'?"),
        ("parameterizations.v.target", "vv", "parameterizations.v.target is 'vv', but there is no workflow/"),
        ("parameterizations.v.loss_space", "x", "parameterizations.v.loss_space is 'x', but there is no workflow/"),
        ("parameterizations.v.weighting", "constan", "weighting is 'constan', but there is no workflow/weightings/"),
        ("parameterizations.v.weighting", "constan", "constan.py; did you mean 'constant'?"),
        ("parameterizations.v.weighting", "snrr", "there is no workflow/weightings/snrr.py; did you mean 'snr'?"),
        ("parameterizations.v.schedule", "flo", "there is no workflow/paths/flo.py; did you mean 'flow'?"),
        ("sampling.sampler", "dim", "sampling.sampler is 'dim', but there is no workflow/samplers/dim.py; did you"),
        ("parameterizations.v.parameters", {"s": math.nan}, "parameterizations.v.parameters.s is nan"),
        ("parameterizations.v.parameters", {"sqrt_alpha": 1}, "holds the name 'sqrt_alpha', which is the schedule's"),
        (
            "diffusion.times",
            "unifrm",
            "is 'unifrm', but there is no workflow/times/unifrm.py; did you mean 'uniform'?",
        ),
        ("data.dataset", "digit", "data.dataset is 'digit'; did you mean 'digits'?"),
        ("scales.small.channels", [32, 48], "scales.small.channels.1 is 48; it must be a multiple of 32"),
        ("scales.small.attention", [4], "scales.small.attention is [4], but the levels are 0 to 3"),
        ("scales.tiny.global_batch", 0, "scales.tiny.global_batch is 0; it must be at least 1"),
        ("diffusion.beta_start", 0.5, "diffusion.beta_start is 0.5; it must be at most diffusion.beta_end, 0.02"),
        ("diffusion.beta_end", 1.5, "diffusion.beta_end is 1.5; it must be less than 1"),
        ("sampling.steps", 1001, "sampling.steps is 1001; it must be at most diffusion.timesteps, 1000"),
        ("sampling.spacing", "linspac", "sampling.spacing is 'linspac'; did you mean 'linspace'?"),
        (
            "sampling.parameters",
            {"eta": 1},
            "parameters holds 'eta', which is no constant of sampler 'ddim'; it has none",
        ),
        ("sampling.parameters", {"eta": "1"}, "sampling.parameters.eta is '1'; it must be a finite number"),
        ("sampling.steps", 600, "sampling.steps is 600; with spacing leading it would begin at t = 599 of 999"),
        ("study", False, "study is False; it must be a text; YAML reads yes, no, on and off as true or false"),
        ("bounds", "yes", "bounds is 'yes'; it must be true or false"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(study, place, value, message):
    put(study, place, value)
    said = refusal(study)
    assert message in said
    assert said.startswith("configuration: ")


@pytest.mark.parametrize("name", ["V", "x-0", "0x", "", "a b", "ünï", "a/b", "../a", "v\n", "v.1", "_v", "a" * 65])
@pytest.mark.parametrize("place", ["study", "parameterizations", "grid.parameterizations", "scales", "datasets"])
def test_odd_names_are_refused_everywhere(study, place, name):
    """A name becomes a folder, part of a Snakemake wildcard and of a cell's name; a final newline too is odd."""
    if place == "study":
        study["study"] = name
    elif place == "grid.parameterizations":
        study["grid"]["parameterizations"] = [name]
    else:
        study[place][name] = {}
    message = refusal(study)
    assert place in message
    assert repr(name) in message
    assert "a name is at most 64 lower-case letters, digits and _" in message


@pytest.mark.parametrize("key", [1, True, None, 1.5])
def test_a_key_that_is_no_text_is_refused(study, key):
    study["parameterizations"][key] = {}
    assert f"parameterizations holds the name {key!r}" in refusal(study)
    del study["parameterizations"][key]
    study["training"][key] = 1
    assert f"unknown key '{key}' in training" in refusal(study)


def test_a_misspelt_key_is_told_before_the_missing_one(study):
    study["training"]["stepps"] = study["training"].pop("steps")
    assert "unknown key 'stepps' in training; did you mean 'steps'?" in refusal(study)


def test_a_definition_is_checked_though_the_grid_does_not_name_it(study):
    study["parameterizations"]["later"] = {"target": "epsilonn"}
    assert "parameterizations.later.target is 'epsilonn'" in refusal(study)
    del study["parameterizations"]["later"]
    study["scales"]["later"] = {"channels": [32], "attention": [1], "layers_per_block": 1}
    assert "scales.later.attention is [1]" in refusal(study)


def test_a_file_without_a_definition_is_a_parameterization(study):
    del study["parameterizations"]["v"]
    assert configuration.variant(configuration.validate(study), "v")["target"] == "v"


@pytest.mark.parametrize("steps", [1, 2, 20, 30, 50, 500, 1000])
def test_leading_steps_that_begin_near_pure_noise_are_taken(study, steps):
    study["sampling"]["steps"] = steps
    configuration.validate(study)


@pytest.mark.parametrize("steps", [30, 61, 103, 600])
def test_trailing_steps_must_divide_the_path(study, steps):
    """diffusers steps T // steps down; where that is not the next step, the spread of the samples is wrong."""
    study["sampling"].update(spacing="trailing", steps=steps)
    assert f"sampling.steps is {steps}; with spacing trailing it must divide diffusion.timesteps" in refusal(study)
    study["sampling"]["steps"] = 50
    configuration.validate(study)


def test_one_step_of_linspace_would_begin_without_noise(study):
    study["sampling"].update(spacing="linspace", steps=1)
    assert "sampling.steps is 1; with spacing linspace it would begin at t = 0 of 999; take at least 2" in refusal(
        study
    )
    study["sampling"]["steps"] = 2
    configuration.validate(study)


@pytest.mark.parametrize("spacing", ["linspace", "lambda_uniform"])
def test_more_steps_than_time_steps_are_refused_whatever_the_spacing(study, spacing):
    study["sampling"].update(spacing=spacing, steps=1001)
    assert "sampling.steps is 1001; it must be at most diffusion.timesteps, 1000" in refusal(study)
    study["sampling"]["steps"] = 601  # of which leading and trailing would make others
    configuration.validate(study)


def test_a_samplers_constants_are_those_of_its_step(study):
    study["sampling"].update(sampler="ancestral", parameters={"eta": 0.5})
    configuration.validate(study)
    study["sampling"]["parameters"] = {"noise": 0.5}  # an argument, but none that a configuration could set
    assert "sampling.parameters holds 'noise', which is no constant of sampler 'ancestral'" in refusal(study)
    study["sampling"]["parameters"] = {"etta": 0.5}
    assert "sampling.parameters holds 'etta', which is no constant of sampler 'ancestral'; did you mean 'eta'?" in (
        refusal(study)
    )


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_where_a_ddim_step_goes_the_next_one_begins(study, spacing):
    """Of every number of steps that the configuration takes, for a short path."""
    taken = 0
    for steps in range(1, 61):
        try:
            check_steps({"steps": steps, "spacing": spacing}, 60)
        except UserError:
            continue
        options = {**study["sampling"], "steps": steps, "spacing": spacing}
        t = [point.t for point in trajectory({**LINEAR, "timesteps": 60}, {}, options)][:-1]
        assert t == [t[0] - i * (60 // steps) for i in range(steps)]
        assert 59 - t[0] <= 2 * (60 // steps) - 2
        assert 0 <= t[-1] < 60 // steps
        taken += 1
    assert taken >= 12


# --- reserved names ------------------------------------------------------------------------------------------------


def rule_texts():
    return {path: path.read_text() for path in [ROOT / "Snakefile", *(ROOT / "rules").rglob("*.smk")]}


def rule_names():
    return {
        name for text in rule_texts().values() for name in re.findall(r"^\s*(?:rule|checkpoint) (\w+):", text, re.M)
    }


def test_the_rules_are_found():
    assert {"all", "train", "fid", "report"} <= rule_names()


@pytest.mark.parametrize("name", sorted(rule_names()))
def test_a_rule_lends_its_name_to_no_variant(study, name):
    study["grid"]["parameterizations"] = [name]
    assert f"grid.parameterizations names '{name}', which is a rule" in refusal(study)


def test_no_folder_of_the_pipeline_can_be_taken_for_a_variant_or_a_scale():
    """What the rules write beside the variants' and the scales' folders, read from the rules themselves."""
    written = {path for text in rule_texts().values() for path in re.findall(r'"(results/[^"]*)"', text)}
    assert len(written) > 10
    beside_variants = {path.split("/")[2] for path in written if path.startswith("results/{study}/")}
    beside_scales = {path.split("/")[3] for path in written if path.startswith("results/{study}/{parameterization}/")}
    assert {"table.csv", "log", "{parameterization}"} <= beside_variants
    assert {"check.json", "log", "{scale}"} <= beside_scales
    for name in beside_variants | beside_scales:
        could_be_a_name = re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert not could_be_a_name or name in configuration.RESERVED_NAMES, name


@pytest.mark.parametrize("name", sorted(configuration.RESERVED_NAMES))
def test_reserved_names_are_refused_even_with_a_definition(study, name):
    study["parameterizations"][name] = {"target": "v"}
    study["scales"][name] = study["scales"]["tiny"]
    configuration.validate(study)
    study["grid"]["scales"] = [name]
    assert f"grid.scales names '{name}', which is a rule or a folder" in refusal(study)


def test_the_schedules_names_are_those_of_the_schedule():
    assert set(make_schedule(LINEAR)) == configuration.SCHEDULE_NAMES


# --- variants ------------------------------------------------------------------------------------------------------


def test_what_a_variant_leaves_out_is_filled_in(study):
    study["parameterizations"] = {
        "v": {},
        "mine": {"target": "x0", "loss_space": "v", "weighting": "snr", "schedule": "cosine", "parameters": {"k": 2}},
        "x0_snr": {"target": "x0"},
    }
    linear, cosine = study["diffusion"], {**study["diffusion"], "schedule": "cosine"}
    assert configuration.variant(study, "v") == {
        "target": "v",
        "loss_space": "v",
        "weighting": "constant",
        "parameters": {},
        "diffusion": linear,
    }
    assert configuration.variant(study, "mine") == {
        "target": "x0",
        "loss_space": "v",
        "weighting": "snr",
        "parameters": {"k": 2},
        "diffusion": cosine,
    }
    assert configuration.variant(study, "x0_snr")["loss_space"] == "x0"


def test_known_targets_are_the_files():
    assert kinds.known("parameterizations") == FILES
    assert {"epsilon", "v", "x0"} <= set(TARGETS)


# --- merging and reading -------------------------------------------------------------------------------------------

trees = some.recursive(
    some.none() | some.booleans() | some.integers(0, 3) | some.lists(some.integers(0, 3), max_size=2),
    lambda below: some.dictionaries(some.sampled_from("abc"), below, max_size=3),
    max_leaves=8,
)
mappings = some.dictionaries(some.sampled_from("abc"), trees, max_size=3)


@given(mappings, mappings)
def test_merging_is_snakemakes(below, above):
    """`targetwise` and `snakemake --configfile` must come to one configuration, or what is checked does not run."""
    theirs = copy.deepcopy(below)
    update_config(theirs, copy.deepcopy(above))
    below_before, above_before = copy.deepcopy(below), copy.deepcopy(above)
    assert configuration.merge(below, above) == theirs
    assert (below, above) == (below_before, above_before)


def test_lists_are_replaced_and_mappings_are_merged():
    below = {"grid": {"seeds": [0, 1, 2], "scales": ["small"]}}
    assert configuration.merge(below, {"grid": {"seeds": [7]}}) == {"grid": {"seeds": [7], "scales": ["small"]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "config.yaml holds nothing"),
        (b"# only words\n", "config.yaml holds nothing"),
        (b"- a\n- b\n", "config.yaml holds a list"),
        (b"just a text\n", "config.yaml holds a str"),
        (
            b"a: [1, 2\nb: 3\n",
            "config.yaml, line 2: not valid YAML: while parsing a flow sequence, expected ',' or ']'",
        ),
        (b"a:\n\tb: 1\n", "config.yaml, line 2: not valid YAML: while scanning for the next token, found character"),
        (b"a:\n\tb: 1\n", "; YAML indents with spaces, never with tabs"),
        (b"a: 1\n---\na: 2\n", "config.yaml, line 2: not valid YAML: expected a single document in the stream, but"),
        (b"b: 1\na: 2024-13-45\n", "config.yaml, line 2: not valid YAML: month must be in 1..12"),
        (b"a: !!python/object:os.system {}\n", "config.yaml, line 1: not valid YAML: could not determine"),
        (b"a: &a\n  b: *a\n", "config.yaml, line 1: not valid YAML: found unconstructable recursive node"),
        (b"[" * 3000, "config.yaml is not valid YAML: it is nested too deeply"),
        (b"b: 1\na: \xff\xfe\n", "config.yaml, line 2: not UTF-8 text"),
        (b"b: 1\na: \x00\n", "config.yaml, line 2: not valid YAML: special characters are not allowed"),
        (b"a: 1\nb: 2\na: 3\n", "config.yaml, line 3: the key 'a' is on line 1 already"),
        (b"a: {c: 1, c: 1}\n", "config.yaml, line 1: the key 'c' is on line 1 already"),
    ],
)
def test_a_broken_file_is_named_with_its_line(project, content, message):
    (project / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        configuration.load()
    assert len(str(caught.value).splitlines()) == 1 and "<unicode" not in str(caught.value)


@pytest.mark.parametrize("content", ["training:\n\tsteps: 3\n", None])
def test_snakemake_names_the_line_of_a_broken_base(project, content):
    """In our words, because our check comes before Snakemake reads the file."""
    path = project / "config.yaml"
    path.unlink()
    if content is not None:
        path.write_text(content)
    done = subprocess.run(["snakemake", "-n"], capture_output=True, text=True)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if not line.startswith("host: ")]
    expected = (
        "config.yaml does not exist; run this in the project's root" if content is None else "config.yaml, line 2"
    )
    assert len(said) == 1 and said[0].startswith(f"error: {expected}"), done.stderr
    assert not (project / "results").exists()


def test_a_missing_file_is_named(project):
    with pytest.raises(UserError, match=r"^config/none\.yaml does not exist$"):
        configuration.load([Path("config/none.yaml")])
    with pytest.raises(UserError, match="config cannot be read"):
        configuration.load([Path("config")])


def test_a_key_that_is_there_twice_is_found_in_any_file(project):
    """Snakemake reads the files itself and keeps the last one; so they are read once more."""
    extra = project / "extra.yaml"
    extra.write_text("training:\n  steps: 5\ngrid: {seeds: [0]}\ntraining:\n  log_every: 1\n")
    configuration.require_readable([Path("config.yaml"), Path("config/digits.yaml")])
    with pytest.raises(UserError, match=r"extra\.yaml, line 4: the key 'training' is on line 1 already"):
        configuration.require_readable(["config.yaml", extra])


def test_anchors_and_merge_keys_are_not_taken_for_doubles(project):
    text = "base: &base {a: 1, b: 2}\none:\n  <<: *base\n  a: 3\ntwo:\n  <<: *base\n"
    (project / "x.yaml").write_text(text)
    configuration.require_readable(["x.yaml"])


def test_reading_the_configuration_imports_nothing_heavy():
    """Snakemake parses the Snakefile in every job."""
    asked = "from targetwise import cells; from targetwise.recipe import config; config.load()"
    code = f"import sys; {asked}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "diffusers", "pandas", "scipy", "mlflow", "snakemake", "cleanfid"}.isdisjoint(
        done.stdout.split()
    )


def test_a_parameter_cannot_hide_the_schedule_for_whoever_skips_the_configuration():
    with pytest.raises(ValueError, match="hide"):
        make_schedule(LINEAR, {"sqrt_alpha": 1.0}, dtype=torch.float64)


def test_sigma_data_may_be_measured_and_no_other_constant(project):
    """What is recorded is the number: 0.7526 is the deviation of scikit-learn's digits scaled to [-1, 1]."""
    digits = project / "config/digits.yaml"
    loaded = configuration.load([digits])
    assert configuration.variant(loaded, "edm_f")["parameters"] == {"sigma_data": pytest.approx(0.7526, abs=5e-5)}
    assert loaded["parameterizations"]["edm_f"]["parameters"] == {"sigma_data": "measured"}
    for parameters, said in (
        ("sigma_data: mesured", "sigma_data is 'mesured'; it must be a number, or for sigma_data measured"),
        ("angle: measured", "angle is 'measured'; it must be a finite number"),
        ("sigma_data: true", "sigma_data is True; it must be"),
    ):
        text = f"parameterizations: {{mine: {{target: edm_f, parameters: {{{parameters}}}}}}}"
        (project / "edit.yaml").write_text(text)
        with pytest.raises(UserError, match=said):
            configuration.load([digits, project / "edit.yaml"])
