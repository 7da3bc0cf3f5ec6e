"""``ogpsa run``: what a recipe says is checked as a whole, mistakes are named, and recipes are listed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from data_registry.core.errors import ConfigError
from pipelines.configs import commands
from pipelines.configs.run import RunConfig
from pipelines.core.config import resolve
from pipelines.recipes.chain import Step, load_chain
from pipelines.recipes.recipe import shipped_names
from tests.cli.conftest import Cli

TWO_STEPS = """\
description: Two data sets.
out: made
variables: {rows: 5, seed: 1}
steps:
  first:
    command: prepare-data
    options: {source: testbed-reason, num-samples: "${rows}", seed: "${seed}"}
  second:
    command: prepare-data
    after: [first]
    options: {source: testbed-assist, num-samples: "${steps.first.num-samples}", out: "${out}/data/second"}
"""


def write(text: str, name: str = "recipe.yaml") -> str:
    Path(name).write_text(text)
    return name


def chain_of(text: str, tmp_path: Path, **changes: object) -> dict[str, Step]:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    steps = load_chain(resolve(RunConfig, flags={"recipe": str(path), **changes})).steps
    return {step.name: step for step in steps}


def problems_of(text: str, tmp_path: Path, **changes: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        chain_of(text, tmp_path, **changes)
    return caught.value.problems


# --- What a recipe says ------------------------------------------------------------------------------------------


def test_every_command_that_makes_something_can_be_a_step() -> None:
    makes = set()
    for entry in commands.COMMANDS:
        if "out" in entry.config_class().model_fields:
            makes.add(entry.name)
    assert set(commands.STEPS) <= makes
    assert makes - set(commands.STEPS) == {"quickstart", "run", "slurm"}


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_recipes_are_whole(name: str) -> None:
    chain = load_chain(RunConfig(recipe=name))
    assert len(chain.steps) >= 8
    made = {str(step.out) for step in chain.steps}
    for step in chain.steps:
        read = [str(item) for _, value in step.config for item in (value if isinstance(value, list) else [value])]
        # Whatever lies below the recipe's directory is made by a step of it.
        assert {item for item in read if item.startswith(f"{chain.out}/")} <= made


LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


@pytest.mark.parametrize("changed", [{}, {"model": LLAMA}])
def test_the_papers_recipe_has_its_hyper_parameters(changed: dict[str, str]) -> None:
    steps = {step.name: dict(step.config) for step in load_chain(RunConfig(recipe="paper", variables=changed)).steps}
    both = {"learning_rate": 1e-6, "schedule": "cosine", "warmup_steps": 0, "max_grad_norm": 1.0, "max_length": 2048,
            "space": "gradient", "strength": 1.0, "refresh_samples": 200, "precision": "bf16", "zero": 2}  # fmt: skip
    sft = {"epochs": 3, "batch_size": 4, "accumulation": 4, "refresh_every": 30, **both}
    dpo = {"epochs": 1, "batch_size": 2, "accumulation": 16, "refresh_every": 5, "beta": 0.2, "loss": "sigmoid", **both}
    for step, published in (("sft", sft), ("dpo", dpo)):
        assert {key: steps[step][key] for key in published} == published
    assert (steps["basis-sft"]["num_samples"], len(steps["basis-sft"]["reference"])) == (200, 2)
    assert (steps["basis-dpo"]["num_samples"], steps["basis-dpo"]["objective"]) == (200, "sft-pairs")


def test_the_recipe_of_allo_has_the_published_values() -> None:
    chain = load_chain(RunConfig(recipe="allo-paper"))
    steps = {step.name: dict(step.config) for step in chain.steps}
    every = {"schedule": "cosine", "weight_decay": 0.0, "max_grad_norm": 1.0, "precision": "bf16", "zero": 3}
    one = {"epochs": 1, "beta": 0.1, **every}
    published = {
        "samples": {"answers": 10, "temperature": 0.7, "top_p": 0.95, "max_new_tokens": 1024},
        "pairs": {"pairs_per_prompt": 5, "seed": 42},
        "warmup": {"learning_rate": 1e-6, "warmup_steps": 0.1, "max_length": 1200, "track_change": True, **one},
        "forget": {"learning_rate": 5e-7, "warmup_steps": 0.03, "max_length": 2048, "loss": "npo-token", **one},
        "improve": {"learning_rate": 5e-6, "warmup_steps": 0.1, "max_length": 1200, "rejected_tokens": "0.1", **one},
        "rewriter": {"learning_rate": 2e-5, "warmup_steps": 0.03, "max_length": 2048, "epochs": 3, **every},
    }
    for name, values in published.items():
        assert {key: steps[name][key] for key in values} == values, name
    # One process per GPU, as many as there are; the published values are those of 8.
    batches = {
        name: steps[name]["batch_size"] * steps[name]["accumulation"] * 8
        for name in ("warmup", "forget", "improve", "rewriter")
    }
    assert batches == {"warmup": 32, "forget": 128, "improve": 128, "rewriter": 128}
    # The answers that are scored are cut where forgetting cuts them, or their tokens would not be the same.
    assert steps["tokens"]["max_length"] == steps["forget"]["max_length"]
    assert (steps["forget-mask"]["ratio"], steps["improve-mask"]["ratio"]) == (0.05, 0.10)


def test_the_papers_two_models_differ_by_the_model_alone() -> None:
    """What holds for one of them holds for the other."""
    qwen, llama = (
        [(step.name, step.config.model_dump()) for step in load_chain(RunConfig(recipe="paper", **changed)).steps]
        for changed in ({}, {"variables": {"model": LLAMA}})
    )
    text = str(qwen).replace("Qwen/Qwen2.5-7B-Instruct", LLAMA)
    assert text == str(llama)
    assert text != str(qwen)


def test_references_keep_types_and_order_steps(tmp_path: Path) -> None:
    more = """\
steps:
  last:
    command: evaluate
    options:
      model: ${steps.tuned.out}
      suite: reference-loss
      data: ["${steps.second.out}"]
      name: rows ${rows}, $${kept}
  tuned: {command: train-sft, options: {model: M, data: "${steps.first.out}", seed: "${seed}"}}
"""
    text = TWO_STEPS.replace("steps:\n", more, 1)
    steps = chain_of(text, tmp_path)
    assert list(steps) == ["first", "tuned", "second", "last"]
    assert steps["last"].needs == ("tuned", "second")
    last, second = dict(steps["last"].config), dict(steps["second"].config)
    assert (last["model"], last["data"], last["name"]) == ("made/tuned", [Path("made/data/second")], "rows 5, ${kept}")
    assert second["num_samples"] == 5
    assert steps["first"].out == Path("made/first")


def test_the_command_line_changes_variables_steps_and_place(cli: Cli) -> None:
    write(TWO_STEPS)
    done = cli("run", "recipe.yaml", "--dry-run", "--set", "rows=7", "--set", "steps.first.seed=9", "--out", "o")
    assert done.code == 0
    assert "ogpsa prepare-data testbed-reason --num-samples 7 --seed 9 --out o/first\n" in done.out
    assert "ogpsa prepare-data testbed-assist --num-samples 7 --out o/data/second\n" in done.out


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("${rows}", "${row}", "step 'first', option 'num-samples': there is no variable 'row' (did you mean 'rows'?)"),
        ("steps.first.num", "steps.frist.num", "step 'second', option 'num-samples': ${steps.frist.num-samples}: there "
         "is no step 'frist' (did you mean 'first'?)"),
        ("first.num-samples", "first.subset", "step 'second', option 'num-samples': ${steps.first.subset}: step "
         "'first' does not give the option 'subset'"),
        ("first.num-samples", "first", "step 'second', option 'num-samples': ${steps.first}: write "
         "${steps.first.OPTION}, such as ${steps.first.out}"),
        ("after: [first]", "after: [fist]", "step 'second', after: there is no step 'fist' (did you mean 'first'?)"),
        ("rows: 5", "rows: '${seed}${rows}'",
         "step 'first', option 'num-samples': ${rows} -> ${rows} refers to itself"),
        ('seed: "${seed}"', 'sed: "${seed}"', "step 'first': unknown option 'sed' (did you mean 'seed'?)"),
        ("command: prepare-data\n    after", "command: prepare-date\n    after", "step 'second': there is no command "
         "'prepare-date' for steps (did you mean 'prepare-data'?); there are " + ", ".join(commands.STEPS)),
        ("${out}/data/second", "made/first", "steps 'first' and 'second' both write to 'made/first'"),
        ("rows: 5", "rows: many", "step 'first': option --num-samples: needs a whole number, got 'many'"),
        ('seed: "${seed}"', "overwrite: true", "step 'first': 'overwrite' is not for one step; give it to the recipe"),
        ("rows: 5", "out: 5", "a variable cannot be named 'out': --set out=... means an option of the command"),
        ("  second:", "  'a b':", "'steps': a step cannot be named 'a b': take letters, digits, - and _"),
        ("out: made", "", "'out' is missing"),
        ("description: T", "descripton: T", "unknown key 'descripton' (did you mean 'description'?)"),
        ("    after:", "    afer:", "unknown key 'steps.second.afer' (did you mean 'after'?)"),
        ("after: [first]", "after: first", "'steps.second.after': needs a list, got 'first'"),
        ("out: made", "out: '${rwos}'",
         "step 'first', option 'out': there is no variable 'rwos' (did you mean 'rows'?)"),
    ],
)  # fmt: skip
def test_mistakes_in_a_recipe_are_named(old: str, new: str, expected: str, tmp_path: Path) -> None:
    assert old in TWO_STEPS
    assert expected in problems_of(TWO_STEPS.replace(old, new, 1), tmp_path)


def test_steps_that_need_each_other_are_refused(tmp_path: Path) -> None:
    text = TWO_STEPS.replace("source: testbed-reason,", 'source: testbed-reason, system: "${steps.second.out}",')
    assert problems_of(text, tmp_path) == ["steps need each other in a circle: first -> second -> first"]


INNER = """\
description: One artifact in another.
out: made
steps:
  first:
    command: prepare-data
    options: {source: testbed-reason}
  second:
    command: prepare-data
    options: {source: testbed-assist, out: "PLACE"}
"""


@pytest.mark.parametrize("place", ["${out}/first/second", "made/x/../first/a/b"])
def test_a_step_writes_into_what_another_makes_only_after_it(place: str, tmp_path: Path) -> None:
    text = INNER.replace("PLACE", place)
    (problem,) = problems_of(text, tmp_path)
    assert problem == (
        "step 'second' writes into 'made/first', which step 'first' makes: let it come after that step "
        "(after: [first]), or give it another 'out'"
    )
    assert list(chain_of(text.replace("  second:\n", "  second:\n    after: [first]\n"), tmp_path)) == [
        "first",
        "second",
    ]
    # One that needs it by way of a third is after it too.
    third = "  third: {command: prepare-data, after: [first], options: {source: testbed-reason}}\n"
    assert len(chain_of(text.replace("  second:\n", third + "  second:\n    after: [third]\n"), tmp_path)) == 3


@pytest.mark.parametrize("source", ["${", "a${rows", "${${rows}}", "$${x} and ${"])
def test_a_reference_that_is_not_closed_is_no_text(source: str, tmp_path: Path) -> None:
    (problem, *_) = problems_of(TWO_STEPS.replace("testbed-reason", f'"{source}"'), tmp_path)
    assert "has a '${' without its '}'; $${ stands for a plain ${" in problem
    assert dict(chain_of(TWO_STEPS.replace("testbed-reason", '"$${a} $${"'), tmp_path)["first"].config)["source"] == (
        "${a} $${"
    )


def test_variables_that_no_step_uses_are_said_and_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chain_of(TWO_STEPS, tmp_path)
    assert caplog.text == ""
    chain_of(TWO_STEPS.replace("seed: 1}", "seed: 1, sede: 2, more: '${sede}'}"), tmp_path)
    assert "no step uses the recipe's variables sede, more" in caplog.text
    assert problems_of(TWO_STEPS.replace("seed: 1}", "seed: 1, a: '${b}', b: '${a}'}"), tmp_path) == [
        "variable 'a': ${b} -> ${a} -> ${b} refers to itself", "variable 'b': ${a} -> ${b} -> ${a} refers to itself",
    ]  # fmt: skip
    (twice,) = problems_of(TWO_STEPS.replace("seed: 1}", "seed: 1, my-rows: 1, my_rows: 2}"), tmp_path)
    assert "'my_rows' appears twice" in twice


def test_all_problems_are_shown_at_once(cli: Cli) -> None:
    write(TWO_STEPS.replace("after: [first]", "after: [fist]").replace('seed: "${seed}"', "sed: 1"))
    done = cli("run", "recipe.yaml", "--set", "rows=0", "--set", "steps.third.x=1", "--set", "colour=red")
    assert done.code == 2
    assert "error: 6 problems:" in done.err
    assert "the recipe has no variable 'colour'; it has rows, seed" in done.err
    assert "--set steps.third: there is no step 'third'" in done.err
    assert "option --num-samples: must be at least 1, got 0" in done.err
    assert "where: recipe.yaml" in done.err
    assert not Path("made").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run"], "name a recipe"),
        (["run", "testbde"], r"there is no recipe 'testbde'.*did you mean 'testbed'"),
        (["run", "paper-qwen2.5-7b"], r"there is no recipe 'paper-qwen2.5-7b'.*did you mean 'paper'"),
        (["run", "recipe.yaml", "--only", "frist"], r"there is no step 'frist' \(did you mean 'first'\?\)"),
        (["run", "recipe.yaml", "--start-at", "x"], "there is no step 'x'"),
        (["run", "."], "'.' is a directory, where a recipe is needed"),
        (["run", "empty.yaml"], "a recipe holds 'key: value' lines; this one is empty"),
        (["run", "broken.yaml"], "not valid YAML"),
    ],
)
def test_what_cannot_be_run_is_refused(arguments: Sequence[str], expected: str, cli: Cli) -> None:
    write(TWO_STEPS)
    write("", "empty.yaml")
    write("a: [", "broken.yaml")
    done = cli(*arguments)
    assert done.code == 2
    assert re.search(expected, done.err), done.err
    assert "Traceback" not in done.err


def test_it_is_one_process(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    write(TWO_STEPS)
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "x",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    done = cli("run", "recipe.yaml")
    assert done.code == 2
    assert "starts the processes of each step itself" in done.err


def test_recipes_are_listed_and_shown(cli: Cli) -> None:
    listed = cli("run", "--list")
    assert listed.code == 0
    assert all(name in listed.out for name in shipped_names())
    shown = cli("run", "testbed", "--show")
    write(shown.out, "mine.yaml")
    again = cli("run", "mine.yaml", "--dry-run", "--out", "x")
    assert (again.code, again.out.partition("\n")[2]) == (
        0,
        cli("run", "testbed", "--dry-run", "--out", "x").out.partition("\n")[2],
    )


def test_options_of_steps_have_other_names_too(tmp_path: Path) -> None:
    recipe = """
description: x
out: made
steps:
  sft:
    command: train-sft
    options: {model_name_or_path: m, data: d, lr: 1.0e-4, output_dir: here}
"""
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe)
    (step,) = load_chain(resolve(RunConfig, flags={"recipe": str(path)}, sets=["steps.sft.learning-rate=1e-5"])).steps
    assert step.arguments == ["train-sft", "m", "--data", "d", "--learning-rate", "1e-05", "--out", "here"]
    (step,) = load_chain(resolve(RunConfig, flags={"recipe": str(path)}, sets=["steps.sft.lr=1e-6"])).steps
    assert "--learning-rate" not in step.arguments
    path.write_text(recipe.replace("lr: 1.0e-4", "num-procs: 1, num_procs: 2"))
    with pytest.raises(ConfigError, match="step 'sft': option 'num_procs' is given twice"):
        load_chain(resolve(RunConfig, flags={"recipe": str(path)}))
    # What a recipe says of an option's default is no request, as in a file.
    path.write_text(recipe.replace("lr: 1.0e-4", "space: gradient"))
    assert load_chain(resolve(RunConfig, flags={"recipe": str(path)})).steps
    path.write_text(recipe.replace("lr: 1.0e-4", "space: update"))
    with pytest.raises(ConfigError, match="step 'sft': --space needs --basis"):
        load_chain(resolve(RunConfig, flags={"recipe": str(path)}))
