"""Command lines as people type them: other programs' names, other spellings, options given twice."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_registry.core.errors import ConfigError
from ogpsa_cli.command import in_our_spelling
from ogpsa_cli.pages import page_of
from pipelines.configs.commands import BY_NAME, COMMANDS
from pipelines.core import other_names
from pipelines.core.config import resolve
from tests.cli.conftest import Cli


def read(command: str, *words: str) -> list[str]:
    return in_our_spelling(BY_NAME[command], words)


def refused(command: str, *words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(command, *words)
    return caught.value.problems


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--learning_rate 1e-5", "--learning-rate 1e-5"),
        ("--learningRate=1e-5", "--learning-rate=1e-5"),
        ("--lr 1e-5 --num_train_epochs 2", "--learning-rate 1e-5 --epochs 2"),
        ("--model_name_or_path m --output_dir o", "m --out o"),
        ("--model m", "m"),
        ("--per_device_train_batch_size 8 --gradient_accumulation_steps 2", "--batch-size 8 --accumulation 2"),
        ("--lr_scheduler_type linear --warmup_ratio 0.1", "--schedule linear --warmup-steps 0.1"),
        ("--lora_r 8 --lora_target all", "--lora-rank 8 --lora-targets all-linear"),
        ("--lora_target_modules q_proj,v_proj", "--lora-targets q_proj,v_proj"),
        ("--cutoff_len 512", "--max-length 512"),
        ("--bf16", "--precision bf16"),
        ("--bf16 True --packing", "--precision bf16 --packing"),
        ("--gradient_checkpointing True --packing false", "--gradient-checkpointing --no-packing"),
        ("--gradient_checkpointing=true --trust_remote_code=False", "--gradient-checkpointing --no-trust-remote-code"),
        ("--no_resume", "--no-resume"),
        ("--logging_steps 5 --save_steps 10 --save_total_limit 1", "--log-every 5 --save-every 10 --keep 1"),
        ("--attn_implementation sdpa --model_revision main", "--attention sdpa --revision main"),
        ("--dry_run -b 4 -d x", "--dry-run -b 4 -d x"),
        # A value is never taken for a name.
        ("--report_to --learning_rate", "--report-to --learning_rate"),
        ("-o --learning_rate", "-o --learning_rate"),
        ("-- --learning_rate", "-- --learning_rate"),
        ("--set learning_rate=1 --set epochs=2", "--set learning_rate=1 --set epochs=2"),
        ("--frobnicate 3", "--frobnicate 3"),
        ("--help --lr 1 --lr 2", "--help --lr 1 --lr 2"),
    ],
)
def test_words_are_read_as_ours(typed: str, meant: str) -> None:
    assert read("train-sft", *typed.split()) == meant.split()


@pytest.mark.parametrize(
    ("command", "typed", "meant"),
    [
        ("evaluate", "--tasks mmlu,gsm8k --num_fewshot 5", "--task mmlu --task gsm8k --shots 5"),
        ("evaluate", "--pretrained m --output_path o --apply_chat_template", "m --out o --chat-prompts"),
        ("prepare-data", "--dataset gsm8k --dataset_num_proc 2", "gsm8k --num-workers 2"),
        ("train-dpo", "--pref_beta 0.1 --loss_type ipo", "--beta 0.1 --loss ipo"),
        ("run", "--start_at sft", "--start-at sft"),
        # Anything else is a variable of the recipe there, or no option.
        ("run", "--lr 3", "--lr 3"),
    ],
)
def test_other_commands_have_other_names(command: str, typed: str, meant: str) -> None:
    assert read(command, *typed.split()) == meant.split()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--dataset alpaca_en", "ogpsa prepare-data SOURCE --out DATA"),
        ("--template qwen", "--chat-template FILE"),
        ("--stage sft", "the command says it"),
        ("--finetuning_type lora", "--lora-rank N"),
        ("--fp16", "--precision bf16"),
        ("--val_size 0.1", "--eval-split SHARE"),
        ("--neftune_noise_alpha 5", "--set trainer.neftune_noise_alpha=VALUE"),
        ("--bf16 false", "--precision fp32"),
        ("--warmup_ratio 2", "--warmup-steps takes steps"),
        ("--lr 1 --learning-rate 2", "option --lr (also as --learning-rate) is given twice"),
        ("--epochs 1 --epochs 1 --epochs 1", "is given 3 times; it takes one value"),
        ("--packing --no-packing", "--packing is turned on and off"),
        ("-b 1 --batch-size 2", "is given twice"),
    ],
)
def test_what_means_nothing_here_is_refused_with_what_to_do(typed: str, said: str) -> None:
    (problem,) = refused("train-sft", *typed.split())
    assert said in problem


def test_all_problems_of_the_words_are_told_at_once() -> None:
    assert len(refused("train-sft", "--stage", "sft", "--template", "x", "--lr", "1", "--lr", "2")) == 3


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_every_option_that_takes_one_value_is_refused_twice(command: str) -> None:
    for flag in page_of(BY_NAME[command]).flags:
        if flag.positional or flag.kind != "value":
            continue
        for first in flag.names:
            (problem,) = refused(command, first, "1", flag.names[0], "1")
            assert "is given twice; it takes one value" in problem
        assert read(command, flag.names[0], "1") == [flag.names[0], "1"]
    assert "is given twice" in refused(command, "--config", "a", "-c", "b")[0]


def test_what_can_be_repeated_is_left_alone() -> None:
    words = ["m", "--suite", "a", "-s", "b", "--data", "x", "--data", "y", "--set", "a=1", "--set", "b=2", "--verbose"]
    assert read("evaluate", *words) == words


@pytest.mark.parametrize("name", sorted(other_names.SAME))
def test_a_foreign_name_is_known_wherever_its_field_is(name: str) -> None:
    meaning = other_names.SAME[name]
    values = {"bf16": "true", "warmup_ratio": "0.5", "apply_chat_template": "true"}
    commands = [command for command in COMMANDS if meaning.field in command.config_class().model_fields]
    assert commands, f"no command has {meaning.field}"
    for command in commands:
        config_class = command.config_class()
        fields = config_class.model_fields
        if not config_class.takes_other_names or name in fields or (meaning.beside and meaning.beside not in fields):
            continue
        (field,), problems = other_names.translate(config_class.model_fields, {name: values.get(name, "1")})
        assert (field, problems) == (meaning.field, [])


def test_the_page_on_configuration_lists_the_names() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    table = page[page.index("| here | elsewhere |") :].split("\n\n")[0]
    listed: dict[str, str] = {}
    for row in table.splitlines()[2:]:
        ours, theirs = (cell.strip() for cell in row.strip("|").split("|"))
        field = ours.strip("`").removeprefix("--").lower().replace("-", "_")
        listed |= {name.strip().strip("`").partition(" ")[0].strip("`"): field for name in theirs.split(",")}
    assert listed == {name: meaning.field for name, meaning in other_names.SAME.items()}


def test_a_name_means_nothing_where_the_field_means_something_else() -> None:
    assert read("prepare-data", "--model_revision", "x") == ["--model_revision", "x"]
    assert read("evaluate", "--per_device_train_batch_size", "2") == ["--per_device_train_batch_size", "2"]


def test_hints_name_options_that_exist() -> None:
    known = {flag.names[0] for command in COMMANDS for flag in page_of(command).flags} | {"--no-resume", "--set"}
    for text in other_names.HINTS.values():
        words = [word.strip(",;.:") for word in text.split() if word.startswith("--")]
        assert [word for word in words if word not in known] == []
    fields = {name for command in COMMANDS for name in command.config_class().model_fields}
    assert not set(other_names.SAME) & fields - {"output", "tokenizer"}
    # build-basis has a --dtype of its own; four bits are for training and build-basis.
    assert set(other_names.HINTS) & fields == {"dtype", "load_in_4bit"}


def test_files_and_sets_know_the_same_names(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "model_name_or_path: m\noutputDir: o\ndata: d\nlr: 1.0e-5\nbf16: true\n"
        "lora_target: [q_proj, v_proj]\nlora_r: 4\n"
    )
    config: Any = resolve(BY_NAME["train-sft"].config_class(), file=file, sets=["num_train_epochs=2"])
    assert (config.model, config.out, config.learning_rate, config.precision) == ("m", Path("o"), 1e-5, "bf16")
    assert (config.lora_rank, config.lora_targets, config.epochs) == (4, "q_proj,v_proj", 2)


@pytest.mark.parametrize(
    ("text", "sets", "said"),
    [
        ("lr: 1\nlearning-rate: 2\n", [], "option 'learning_rate' is given twice: as 'lr' and as 'learning_rate'"),
        ("template: qwen\n", [], "unknown option 'template': the tokenizer's own chat template is used"),
        ("", ["stage=sft"], "unknown option 'stage': leave it out"),
        ("", ["lr=1", "learning_rate=2"], "'learning_rate' is set twice"),
        ("", ["trainer.optim=a", "trainer.optim=b"], "'trainer.optim' is set twice"),
        ("", ["warmup_ratio=3"], "warmup_ratio is a share below 1"),
        ("adam_beta1: 0.8\n", [], "unknown option 'adam_beta1': --set trainer.adam_beta1=VALUE"),
    ],
)
def test_mistakes_in_files_and_sets_are_told_alike(tmp_path: Path, text: str, sets: list[str], said: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model: m\nout: o\ndata: d\n" + text)
    with pytest.raises(ConfigError) as caught:
        resolve(BY_NAME["train-sft"].config_class(), file=file, sets=sets)
    assert said in "\n".join(caught.value.problems)


def test_the_command_line_says_it_in_one_error(cli: Cli) -> None:
    assert "MODEL is required" in cli("train_sft").err
    outcome = cli("train-sft", "--model", "m", "--data", "d", "--out", "o", "--lr", "1e-5", "--lr", "1e-6")
    assert (outcome.code, outcome.err) == (2, "error: option --lr is given twice; it takes one value\n")
    outcome = cli("train-sft", "m", "--data", "d", "--out", "o", "--space", "gradient", "--strength", "0.5")
    assert outcome.code == 2
    assert "--space needs --basis: it has no effect otherwise" in outcome.err
    assert "--strength needs --basis: it has no effect otherwise" in outcome.err


SPELLINGS = st.sampled_from(
    [
        flag.names[0].removeprefix("--")
        for flag in page_of(BY_NAME["train-dpo"]).flags
        if flag.kind == "value" and not flag.positional
    ]
)


@settings(max_examples=200, deadline=None)
@given(SPELLINGS, st.sampled_from(["-", "_", "camel"]), st.booleans(), st.text("-_=abc1", min_size=1, max_size=5))
def test_any_spelling_of_an_option_keeps_its_value(name: str, joint: str, glued: bool, value: str) -> None:
    first, *rest = name.split("-")
    spelled = first + "".join(word.capitalize() for word in rest) if joint == "camel" else joint.join([first, *rest])
    words = [f"--{spelled}={value}"] if glued else [f"--{spelled}", value]
    assert read("train-dpo", *words) == ([f"--{name}={value}"] if glued else [f"--{name}", value])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.text("-=_abAB1", max_size=6)
        | st.sampled_from(["--lr", "--bf16", "-b", "--data", "--", "true", "--no-packing"]),
        max_size=6,
    )
)
def test_any_words_end_in_words_or_an_error(words: list[str]) -> None:
    with contextlib.suppress(ConfigError):
        assert all(isinstance(word, str) for word in read("train-sft", *words))
