"""Bad input: each kind gives its exit code, one clear error, and nothing half-written.

A case is a function from a fresh directory and ready-made artifacts to the arguments of ``ogpsa``; what it names as
``OUT`` must not exist afterwards. To add one, write such a function under ``@case``.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, run_process

CONFIGURATION, ARTIFACT, NUMERICS = 2, 3, 4
OUT = "out"
Arguments = Sequence[str | Path]


@dataclass(frozen=True)
class Place:
    """Where a case prepares its input.

    Attributes:
        here: an empty directory, the working directory of the command.
        made: whole artifacts (``model``, ``general``, ``safety``, ``pairs``, ``basis``), not to be changed.
    """

    here: Path
    made: Path

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.here / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def rows(self, name: str, rows: Sequence[object]) -> Path:
        return self.file(name, "".join(json.dumps(row) + "\n" for row in rows))

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.made / name, self.here / name))

    def changed_model(self, **changes: object) -> Path:
        model = self.copy("model")
        config = json.loads((model / "config.json").read_text()) | changes
        (model / "config.json").write_text(json.dumps(config))
        return model


@dataclass(frozen=True)
class Case:
    """One kind of bad input.

    Attributes:
        prepare: makes it.
        code: the exit code that it must give.
        says: a pattern that the error must contain.
    """

    prepare: Callable[[Place], Arguments]
    code: int
    says: str

    @property
    def name(self) -> str:
        return self.prepare.__name__


CASES: list[Case] = []
Prepare = Callable[[Place], Arguments]


def case(code: int, says: str) -> Callable[[Prepare], Prepare]:
    """Register a case under its function's name."""

    def register(prepare: Prepare) -> Prepare:
        CASES.append(Case(prepare, code, says))
        return prepare

    return register


ALPACA = {"instruction": "What is two and two?", "output": "Four."}


def sft(place: Place, *options: str | Path, model: Path | str | None = None, data: Path | None = None) -> Arguments:
    """A training command that would work, but for what a case changes."""
    arguments = ["train-sft", model or place.made / "model", "--data", data or place.made / "safety"]
    return [*arguments, "--max-steps", "1", "--precision", "fp32", "--out", OUT, *options]


def basis(place: Place, *options: str | Path, model: Path | str | None = None, data: Path | None = None) -> Arguments:
    """A build-basis command that would work, but for what a case changes."""
    arguments = ["build-basis", model or place.made / "model", "--reference", data or place.made / "general"]
    return [*arguments, "--num-samples", "2", "--precision", "fp32", "--out", OUT, *options]


def evaluate(place: Place, *options: str | Path, model: Path | None = None) -> Arguments:
    """An evaluate command, complete but for the suite."""
    return ["evaluate", model or place.made / "model", "--out", OUT, *options]


def prepare(source: str | Path, *options: str | Path) -> Arguments:
    """A prepare-data command."""
    return ["prepare-data", source, "--out", OUT, *options]


# --- The command line --------------------------------------------------------------------------------------------


@case(CONFIGURATION, "no command 'trian-sft'.*did you mean 'train-sft'")
def unknown_command(place: Place) -> Arguments:
    return ["trian-sft", "model"]


@case(CONFIGURATION, "no option '--learnin-rate'.*did you mean '--learning-rate'")
def unknown_flag(place: Place) -> Arguments:
    return sft(place, "--learnin-rate", "1e-4")


@case(CONFIGURATION, "'--basis' requires an argument")
def flag_without_value(place: Place) -> Arguments:
    return sft(place, "--basis")


@case(CONFIGURATION, "unexpected extra argument")
def argument_too_many(place: Place) -> Arguments:
    return [*sft(place), "another"]


@case(CONFIGURATION, r"3 problems:\n.*required")
def nothing_given(place: Place) -> Arguments:
    return ["train-sft"]


@case(CONFIGURATION, "--max-steps: needs a whole number, got 'many'")
def word_for_a_number(place: Place) -> Arguments:
    return sft(place, "--max-steps", "many")


@case(CONFIGURATION, "--strength: must be at most 1")
def number_out_of_range(place: Place) -> Arguments:
    return sft(place, "--strength", "1.5")


@case(CONFIGURATION, "--learning-rate: needs a finite number")
def infinite_number(place: Place) -> Arguments:
    return sft(place, "--learning-rate", "inf")


@case(CONFIGURATION, "--space: must be .*did you mean 'gradient'")
def unknown_choice(place: Place) -> Arguments:
    return sft(place, "--space", "gradeint")


@case(CONFIGURATION, "--offload needs --zero 2 or --zero 3")
def options_that_need_each_other(place: Place) -> Arguments:
    return sft(place, "--offload")


@case(CONFIGURATION, "--out is empty")
def variable_that_was_never_set(place: Place) -> Arguments:
    return ["build-basis", place.made / "model", "--reference", place.made / "general", "--out", ""]


@case(CONFIGURATION, "'config.yaml' does not exist")
def missing_configuration_file(place: Place) -> Arguments:
    return sft(place, "--config", "config.yaml")


@case(CONFIGURATION, "unknown option 'learnig_rate'.*did you mean 'learning_rate'")
def unknown_key_in_the_file(place: Place) -> Arguments:
    return sft(place, "--config", place.file("config.yaml", "learnig-rate: 1e-5\n"))


@case(CONFIGURATION, "not valid YAML")
def broken_yaml(place: Place) -> Arguments:
    return sft(place, "--config", place.file("config.yaml", "learning_rate: [1e-5\n"))


@case(CONFIGURATION, r"'epochs' appears twice \(line 2")
def key_given_twice(place: Place) -> Arguments:
    return sft(place, "--config", place.file("config.yaml", "epochs: 1\nepochs: 2\n"))


@case(CONFIGURATION, "this one is a list")
def yaml_of_another_shape(place: Place) -> Arguments:
    return sft(place, "--config", place.file("config.yaml", "- epochs\n- 1\n"))


@case(CONFIGURATION, "is not text")
def binary_configuration_file(place: Place) -> Arguments:
    return sft(place, "--config", place.file("config.yaml", b"\x89PNG\xff\xfe"))


@case(CONFIGURATION, "is a directory")
def directory_as_configuration_file(place: Place) -> Arguments:
    return sft(place, "--config", place.made)


@case(CONFIGURATION, "KEY=VALUE")
def set_without_value(place: Place) -> Arguments:
    return sft(place, "--set", "epochs")


@case(CONFIGURATION, "neftune_noise_alpha")
def unknown_trainer_option(place: Place) -> Arguments:
    return sft(place, "--set", "trainer.neftune_noise_alhpa=5")


# --- Preparing data ----------------------------------------------------------------------------------------------


@case(CONFIGURATION, "'rows.jsonl' does not exist")
def missing_source(place: Place) -> Arguments:
    return prepare("rows.jsonl")


@case(CONFIGURATION, "did you mean 'gsm8k'")
def misspelt_registry_name(place: Place) -> Arguments:
    return prepare("gsm8kk")


@case(CONFIGURATION, "JSON is damaged.*cut off")
def truncated_json(place: Place) -> Arguments:
    return prepare(place.file("rows.json", json.dumps([ALPACA] * 5)[:-40]))


@case(CONFIGURATION, "3 of 9 rows .* cannot be used.*rows.jsonl:7")
def too_many_broken_lines(place: Place) -> Arguments:
    lines = [json.dumps({**ALPACA, "instruction": f"Question {n}?"}) for n in range(6)]
    return prepare(place.file("rows.jsonl", "\n".join([*lines, "{broken", "}", "nonsense"])))


@case(CONFIGURATION, "damaged or cut off")
def truncated_gzip(place: Place) -> Arguments:
    rows = "".join(json.dumps({**ALPACA, "instruction": os.urandom(20).hex()}) + "\n" for _ in range(500))
    return prepare(place.file("rows.jsonl.gz", gzip.compress(rows.encode())[:-2000]))


@case(CONFIGURATION, "Parquet file is damaged")
def truncated_parquet(place: Place) -> Arguments:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist([ALPACA] * 50), place.here / "rows.parquet")
    os.truncate(place.here / "rows.parquet", 300)
    return prepare(place.here / "rows.parquet")


@case(CONFIGURATION, "Parquet file is damaged")
def foreign_file_with_a_known_suffix(place: Place) -> Arguments:
    return prepare(place.file("rows.parquet", b"%PDF-1.7 not parquet at all" * 10))


@case(CONFIGURATION, "no kind that can be read")
def file_of_an_unknown_kind(place: Place) -> Arguments:
    return prepare(place.file("rows.docx", b"PK\x03\x04 whatever"))


@case(CONFIGURATION, "is empty|no readable row")
def empty_file(place: Place) -> Arguments:
    return prepare(place.file("rows.jsonl", ""))


@case(CONFIGURATION, "holds no data")
def empty_folder(place: Place) -> Arguments:
    (place.here / "folder").mkdir()
    return prepare(place.here / "folder")


@case(CONFIGURATION, "not recognised.*colour, size")
def columns_that_no_format_has(place: Place) -> Arguments:
    return prepare(place.file("rows.csv", "colour,size\nred,3\nblue,4\n"))


@case(CONFIGURATION, "unknown format 'alpacca'")
def format_that_does_not_exist(place: Place) -> Arguments:
    return prepare(place.rows("rows.jsonl", [ALPACA]), "--format", "alpacca")


@case(CONFIGURATION, "no usable row")
def zero_usable_rows(place: Place) -> Arguments:
    empty = [{"instruction": f"Question {n}?", "output": ""} for n in range(5)]
    return prepare(place.rows("rows.jsonl", empty), "--format", "alpaca", "--max-dropped", "1")


@case(CONFIGURATION, "6 of 9 rows .* cannot be used")
def more_dropped_than_allowed(place: Place) -> Arguments:
    rows = [{**ALPACA, "instruction": f"Question {n}?", "output": "" if n % 3 else "Four."} for n in range(9)]
    return prepare(place.rows("rows.jsonl", rows), "--format", "alpaca")


@case(CONFIGURATION, "fewer than the 50")
def more_samples_than_rows(place: Place) -> Arguments:
    return prepare(place.rows("rows.jsonl", [ALPACA]), "--num-samples", "50")


@case(CONFIGURATION, "(?i)preference")
def task_that_the_rows_are_not_for(place: Place) -> Arguments:
    return prepare(place.rows("rows.jsonl", [ALPACA]), "--format", "alpaca", "--task", "preference")


@case(CONFIGURATION, "--max-length needs --tokenizer")
def length_without_tokenizer(place: Place) -> Arguments:
    return prepare(place.rows("rows.jsonl", [ALPACA]), "--max-length", "100")


@case(CONFIGURATION, "no usable row.*no_trained_token")
def length_that_leaves_nothing_to_train(place: Place) -> Arguments:
    options = ["--tokenizer", place.made / "model", "--max-length", "2", "--max-dropped", "1"]
    return prepare(place.rows("rows.jsonl", [ALPACA]), *options)


@case(CONFIGURATION, "tokenizer .* does not exist")
def missing_tokenizer(place: Place) -> Arguments:
    return prepare(place.rows("rows.jsonl", [ALPACA]), "--tokenizer", place.here / "none", "--preview", "1")


@case(CONFIGURATION, "(?i)chat template")
def tokenizer_without_chat_template(place: Place) -> Arguments:
    model = place.copy("model")
    (model / "chat_template.jinja").unlink()
    return prepare(place.rows("rows.jsonl", [ALPACA]), "--tokenizer", model, "--preview", "1")


@case(CONFIGURATION, "registry .* does not exist")
def missing_registry_file(place: Place) -> Arguments:
    return prepare("mine", "--registry", place.here / "dataset_info.json")


@case(CONFIGURATION, "cannot be read.*dataset_info.json")
def broken_registry_file(place: Place) -> Arguments:
    return prepare("mine", "--registry", place.file("dataset_info.json", '{"mine": {"file_name": '))


@case(CONFIGURATION, "registry has no 'nothing'")
def description_of_an_unknown_entry(place: Place) -> Arguments:
    return ["prepare-data", "nothing", "--describe"]


@case(CONFIGURATION, "(?i)split")
def split_that_the_source_has_not(place: Place) -> Arguments:
    return prepare(place.rows("rows.jsonl", [ALPACA]), "--source-split", "validation")


# --- Where the result goes ---------------------------------------------------------------------------------------


@case(CONFIGURATION, "cannot write to")
def directory_that_cannot_be_made(place: Place) -> Arguments:
    blocker = place.file("file", "x")
    return ["prepare-data", place.rows("rows.jsonl", [ALPACA]), "--out", blocker / "below" / OUT]


@case(CONFIGURATION, "cannot write to")
def place_without_permission(place: Place) -> Arguments:
    return ["prepare-data", place.rows("rows.jsonl", [ALPACA]), "--out", "/proc/ogpsa/out"]


@case(CONFIGURATION, "(?i)file name too long")
def name_that_is_too_long(place: Place) -> Arguments:
    return ["prepare-data", place.rows("rows.jsonl", [ALPACA]), "--out", "x" * 300]


# --- Models ------------------------------------------------------------------------------------------------------


@case(CONFIGURATION, "does not exist|no directory here|neither a directory")
def missing_model(place: Place) -> Arguments:
    return basis(place, model="./no/such/model")


@case(CONFIGURATION, "hub")
def model_on_a_hub_that_cannot_be_reached(place: Place) -> Arguments:
    return basis(place, model="nobody/nothing")


@case(CONFIGURATION, "no config.json")
def model_without_configuration(place: Place) -> Arguments:
    model = place.copy("model")
    (model / "config.json").unlink()
    return basis(place, model=model)


@case(CONFIGURATION, "holds no weights")
def model_without_weights(place: Place) -> Arguments:
    model = place.copy("model")
    (model / "model.safetensors").unlink()
    return basis(place, model=model)


@case(CONFIGURATION, "model.safetensors.*damaged")
def truncated_weights(place: Place) -> Arguments:
    model = place.copy("model")
    os.truncate(model / "model.safetensors", 100_000)
    return basis(place, model=model)


@case(CONFIGURATION, "pickle")
def pickled_weights(place: Place) -> Arguments:
    model = place.copy("model")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    return basis(place, model=model)


@case(CONFIGURATION, "does not know model type 'llamma'")
def unknown_model_type(place: Place) -> Arguments:
    return basis(place, model=place.changed_model(model_type="llamma"))


@case(CONFIGURATION, "not a causal language model")
def model_that_writes_no_text(place: Place) -> Arguments:
    return basis(place, model=place.changed_model(model_type="bert", architectures=["BertModel"]))


@case(CONFIGURATION, "do not fit")
def weights_of_another_shape(place: Place) -> Arguments:
    return basis(place, model=place.changed_model(hidden_size=48, head_dim=12))


@case(CONFIGURATION, "is a file")
def file_as_model(place: Place) -> Arguments:
    return basis(place, model=place.made / "model" / "model.safetensors")


@case(CONFIGURATION, "(?i)revision")
def revision_of_a_directory(place: Place) -> Arguments:
    return basis(place, "--revision", "main")


@case(CONFIGURATION, "holds no tokenizer")
def model_without_tokenizer(place: Place) -> Arguments:
    model = place.copy("model")
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()
    return basis(place, model=model)


@case(CONFIGURATION, "chat template is not Jinja")
def broken_chat_template(place: Place) -> Arguments:
    return basis(place, "--chat-template", place.file("template.jinja", "{% for m in messages %}{{ m.content }"))


@case(CONFIGURATION, "chat template cannot be read")
def missing_chat_template(place: Place) -> Arguments:
    return basis(place, "--chat-template", place.here / "none.jinja")


@case(CONFIGURATION, "attention 'flashiest'")
def unknown_attention(place: Place) -> Arguments:
    return basis(place, "--attention", "flashiest")


# --- Artifacts as input ------------------------------------------------------------------------------------------


@case(CONFIGURATION, "prepare it first")
def data_that_was_not_prepared(place: Place) -> Arguments:
    return sft(place, data=place.rows("rows.jsonl", [ALPACA]))


@case(CONFIGURATION, "does not exist")
def missing_data(place: Place) -> Arguments:
    return sft(place, data=place.here / "none")


@case(CONFIGURATION, "preference, where sft is needed")
def data_for_another_task(place: Place) -> Arguments:
    return sft(place, data=place.made / "pairs")


@case(ARTIFACT, "does not verify")
def truncated_data(place: Place) -> Arguments:
    data = place.copy("general")
    file = next(data.glob("*.arrow"))
    os.truncate(file, file.stat().st_size // 2)
    return basis(place, data=data)


@case(ARTIFACT, "newer ogpsa")
def data_of_a_newer_version(place: Place) -> Arguments:
    data = place.copy("general")
    manifest = json.loads((data / "manifest.json").read_text())
    (data / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))
    return basis(place, data=data)


@case(ARTIFACT, "manifest.*damaged")
def damaged_manifest(place: Place) -> Arguments:
    data = place.copy("general")
    os.truncate(data / "manifest.json", 100)
    return basis(place, data=data)


@case(ARTIFACT, "is a basis, where a dataset is needed")
def basis_as_data(place: Place) -> Arguments:
    return sft(place, data=place.made / "basis")


@case(ARTIFACT, "is a dataset")
def data_as_basis(place: Place) -> Arguments:
    return sft(place, "--basis", place.made / "general")


@case(ARTIFACT, "is a dataset")
def data_as_model(place: Place) -> Arguments:
    return basis(place, model=place.made / "general")


@case(CONFIGURATION, "does not exist")
def missing_basis(place: Place) -> Arguments:
    return sft(place, "--basis", place.here / "none")


@case(ARTIFACT, "does not verify")
def truncated_basis(place: Place) -> Arguments:
    damaged = place.copy("basis")
    file = next(damaged.glob("*.safetensors"))
    os.truncate(file, file.stat().st_size // 2)
    return sft(place, "--basis", damaged)


@case(ARTIFACT, "basis .*built for")
def basis_of_another_model(place: Place) -> Arguments:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = place.copy("model")
    config = LlamaConfig.from_pretrained(model, num_hidden_layers=2)
    LlamaForCausalLM(config).save_pretrained(model)
    return sft(place, "--basis", place.made / "basis", "--refresh-every", "0", model=model)


@case(CONFIGURATION, "both named 'general'")
def two_references_of_one_name(place: Place) -> Arguments:
    return basis(place, "--reference", place.copy("general"))


# --- Training and evaluation -------------------------------------------------------------------------------------


@case(NUMERICS, "(?i)not finite|nan")
def model_with_nan_in_it(place: Place) -> Arguments:
    return basis(place, model=model_of_nan(place))


@case(NUMERICS, "(?i)not finite|nan")
def training_from_nan(place: Place) -> Arguments:
    return sft(place, model=model_of_nan(place))


@case(NUMERICS, "(?i)not finite|nan")
def training_that_diverges(place: Place) -> Arguments:
    options = ["--learning-rate", "1e30", "--max-steps", "8", "--log-every", "1", "--max-grad-norm", "0"]
    return sft(place, *options, "--accumulation", "1")


@case(NUMERICS, "(?i)not finite|nan")
def evaluation_of_nan(place: Place) -> Arguments:
    return evaluate(place, "--suite", "reference-loss", "--data", place.made / "general", model=model_of_nan(place))


def model_of_nan(place: Place) -> Path:
    from safetensors.torch import load_file, save_file

    model = place.copy("model")
    weights = load_file(model / "model.safetensors")
    name = next(name for name in weights if "down_proj" in name)
    weights[name].fill_(float("nan"))
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    return model


@case(CONFIGURATION, "deepspeed.json")
def missing_deepspeed_file(place: Place) -> Arguments:
    return sft(place, "--deepspeed", place.here / "deepspeed.json")


@case(CONFIGURATION, "(?i)json|deepspeed")
def broken_deepspeed_file(place: Place) -> Arguments:
    return sft(place, "--deepspeed", place.file("deepspeed.json", '{"zero_optimization": '))


def dpo(place: Place, *options: str | Path, data: Path) -> Arguments:
    """A train-dpo command that would work, but for what a case changes."""
    arguments = ["train-dpo", place.made / "model", "--data", data, "--max-steps", "1", "--precision", "fp32"]
    return [*arguments, "--accumulation", "1", "--out", OUT, *options]


@case(CONFIGURATION, "rows for sft, where preference is needed")
def preferences_from_conversations(place: Place) -> Arguments:
    return dpo(place, data=place.made / "safety")


@case(CONFIGURATION, "unknown loss 'sigmoyd' \\(did you mean 'sigmoid'")
def unknown_preference_loss(place: Place) -> Arguments:
    return dpo(place, "--loss", "sigmoyd", data=place.made / "pairs")


@case(CONFIGURATION, "no token of the chosen completion is left")
def preferences_longer_than_allowed(place: Place) -> Arguments:
    return dpo(place, "--max-length", "4", data=place.made / "pairs")


@case(CONFIGURATION, "rows for sft, where preference is needed")
def preference_objective_on_conversations(place: Place) -> Arguments:
    return basis(place, "--objective", "dpo")


@case(CONFIGURATION, "'trainer.beta' is decided by --beta")
def option_of_ours_through_the_trainer(place: Place) -> Arguments:
    return dpo(place, "--set", "trainer.beta=0.3", data=place.made / "pairs")


@case(CONFIGURATION, "goes with --retrain")
def seed_of_a_model_that_is_copied(place: Place) -> Arguments:
    return ["testbed", "--seed", "3", "--out", OUT]


@case(CONFIGURATION, "cosinus")
def unknown_schedule(place: Place) -> Arguments:
    return sft(place, "--schedule", "cosinus")


@case(CONFIGURATION, "(?i)target|module")
def adapters_on_modules_that_are_not_there(place: Place) -> Arguments:
    return sft(place, "--lora-rank", "2", "--lora-targets", "q_porj")


@case(CONFIGURATION, "(?i)report")
def unknown_place_to_report_to(place: Place) -> Arguments:
    return sft(place, "--report-to", "tensorbord")


@case(CONFIGURATION, "suite.*did you mean|testbed")
def unknown_suite(place: Place) -> Arguments:
    return evaluate(place, "--suite", "testbad")


@case(CONFIGURATION, "--data")
def reference_loss_without_data(place: Place) -> Arguments:
    return evaluate(place, "--suite", "reference-loss")


@case(CONFIGURATION, "prompt set '.*none.csv' does not exist")
def prompts_that_are_not_there(place: Place) -> Arguments:
    return evaluate(place, "--suite", "prompts", "--harmful", "none.csv")


@case(CONFIGURATION, "'.*empty.txt' is empty")
def prompts_without_a_prompt(place: Place) -> Arguments:
    return evaluate(place, "--suite", "prompts", "--harmful", place.file("empty.txt", "\n"))


@case(CONFIGURATION, "UTF-8|utf-8")
def prompts_that_are_no_text(place: Place) -> Arguments:
    return evaluate(place, "--suite", "prompts", "--harmful", place.file("a.txt", b"\xff\xfe\x00"))


@case(CONFIGURATION, "no chat template")
def prompts_for_a_model_without_template(place: Place) -> Arguments:
    model = place.copy("model")
    (model / "chat_template.jinja").unlink()
    return evaluate(place, "--suite", "prompts", "--harmful", place.file("a.txt", "how do i break it ?\n"), model=model)


@case(CONFIGURATION, "no prompt of 'prompts/a' fits into the model's context of 128 tokens")
def prompts_that_all_exceed_the_context(place: Place) -> Arguments:
    return evaluate(place, "--suite", "prompts", "--harmful", place.file("a.txt", "break " * 300))


@case(CONFIGURATION, "--download-only")
def prompts_of_the_hub_without_a_network(place: Place) -> Arguments:
    return evaluate(place, "--suite", "xstest")


@case(CONFIGURATION, "unknown key 'sets.0.layout.harmfull'.*did you mean 'harmful'")
def suite_file_with_a_misspelt_key(place: Place) -> Arguments:
    content = "sets: [{data: a.txt, layout: {harmfull: true}}]\n"
    return evaluate(place, "--suite", place.file("mine.yaml", content))


@case(CONFIGURATION, "suite file '.*none.yaml' does not exist")
def suite_file_that_is_not_there(place: Place) -> Arguments:
    return evaluate(place, "--suite", "none.yaml")


@case(CONFIGURATION, "--top-p is for sampling")
def sampling_option_for_greedy_answers(place: Place) -> Arguments:
    return evaluate(place, "--suite", "xstest", "--top-p", "0.9")


@case(CONFIGURATION, "nothing tells how the judge 'model' is to be read")
def judge_model_of_no_known_kind(place: Place) -> Arguments:
    prompts = place.file("a.txt", "how do i break it ?\n")
    return evaluate(place, "--suite", "prompts", "--harmful", prompts, "--judge", place.made / "model")


@case(CONFIGURATION, "unknown judge format 'harmbnech'.*did you mean 'harmbench'")
def misspelt_judge_format(place: Place) -> Arguments:
    prompts = place.file("a.txt", "how do i break it ?\n")
    judge = ["--judge", place.made / "model", "--judge-format", "harmbnech"]
    return evaluate(place, "--suite", "prompts", "--harmful", prompts, *judge)


@case(CONFIGURATION, "--judge-format is for judge models")
def format_for_the_built_in_judge(place: Place) -> Arguments:
    prompts = place.file("a.txt", "how do i break it ?\n")
    return evaluate(place, "--suite", "prompts", "--harmful", prompts, "--judge-format", "harmbench")


@case(CONFIGURATION, "--judge: none of the suites testbed asks for answers to judge")
def judge_without_answers(place: Place) -> Arguments:
    return evaluate(place, "--suite", "testbed", "--judge", "somewhere")


@case(CONFIGURATION, r"--backend vllm: vLLM is not installed in this environment[\s\S]*--backend transformers")
def vllm_is_not_installed(place: Place) -> Arguments:
    prompts = place.file("a.txt", "how do i break it ?\n")
    return evaluate(place, "--suite", "prompts", "--harmful", prompts, "--backend", "vllm")


@case(CONFIGURATION, "--backend vllm makes answers, and testbed scores given ones with the model itself")
def vllm_for_given_answers(place: Place) -> Arguments:
    prompts = place.file("a.txt", "how do i break it ?\n")
    suites = ["--suite", "testbed", "--suite", "prompts"]
    return evaluate(place, *suites, "--harmful", prompts, "--backend", "vllm")


@case(ARTIFACT, "is a dataset, where a results is needed")
def judging_again_something_else(place: Place) -> Arguments:
    return ["evaluate", "--rejudge", place.made / "general", "--out", OUT]


@case(CONFIGURATION, "leave MODEL out")
def judging_again_with_a_model(place: Place) -> Arguments:
    return evaluate(place, "--rejudge", place.made / "general")


@case(CONFIGURATION, "not an artifact|neither an artifact")
def inspection_of_something_else(place: Place) -> Arguments:
    return ["inspect", place.here]


@case(CONFIGURATION, "does not exist")
def inspection_of_nothing(place: Place) -> Arguments:
    return ["inspect", place.here / "none"]


@case(ARTIFACT, "was changed after it was written")
def inspection_finds_a_flipped_bit(place: Place) -> Arguments:
    damaged = place.copy("basis")
    file = next(damaged.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return ["inspect", damaged]


# --- Reports -----------------------------------------------------------------------------------------------------


@case(CONFIGURATION, "RESULTS.* is required")
def a_report_of_nothing(place: Place) -> Arguments:
    return ["report", "--out", OUT]


@case(CONFIGURATION, "there are no results at 'nowhere'")
def results_that_are_not_there(place: Place) -> Arguments:
    return ["report", "nowhere", "--out", OUT]


@case(CONFIGURATION, "holds no results")
def a_model_where_results_are_needed(place: Place) -> Arguments:
    return ["report", place.made / "model", "--out", OUT]


@case(ARTIFACT, "is a basis, where a results is needed")
def a_basis_where_results_are_needed(place: Place) -> Arguments:
    return ["report", place.made / "basis", "--out", OUT]


@case(CONFIGURATION, "neither a path nor NAME=PATH")
def results_with_an_empty_name(place: Place) -> Arguments:
    return ["report", "=results", "--out", OUT]


# --- The campaign ------------------------------------------------------------------------------------------------


def check_error(err: str, says: str) -> None:
    assert len(re.findall(r"^(?:\[rank \d+\] )?error: ", err, flags=re.MULTILINE)) == 1, err
    assert "Traceback" not in err
    assert "bug of ogpsa" not in err
    assert re.search(says, err, flags=re.DOTALL), err


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if ".partial" in path.name or ".replaced" in path.name]


def test_the_campaign_is_large_enough() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 50


# --- Packing and replay ------------------------------------------------------------------------------------------


@case(CONFIGURATION, "trainer.packing' is decided by --packing")
def packing_past_its_option(place: Place) -> Arguments:
    return sft(place, "--set", "trainer.packing=true")


@case(CONFIGURATION, "packing_strategy' is decided by --packing, which keeps rows whole and apart")
def packing_that_cuts_rows(place: Place) -> Arguments:
    return sft(place, "--packing", "--set", "trainer.packing_strategy=wrapped")


@case(CONFIGURATION, "--replay DATA and --replay-ratio SHARE go together")
def replay_without_a_ratio(place: Place) -> Arguments:
    return sft(place, "--replay", place.made / "general")


@case(CONFIGURATION, "--replay-ratio: must be less than 1")
def nothing_but_replay(place: Place) -> Arguments:
    return sft(place, "--replay", place.made / "general", "--replay-ratio", "1")


@case(CONFIGURATION, "less than half a row of replay an epoch")
def less_than_a_row_of_replay(place: Place) -> Arguments:
    return sft(place, "--replay", place.made / "general", "--replay-ratio", "0.01")


@case(CONFIGURATION, "holds rows for preference, where sft is needed")
def pairs_as_replay(place: Place) -> Arguments:
    return sft(place, "--replay", place.made / "pairs", "--replay-ratio", "0.5")


@case(CONFIGURATION, "does not go with --replay, which decides the order")
def two_orders_of_the_rows(place: Place) -> Arguments:
    order = ["--set", "trainer.train_sampling_strategy=sequential"]
    return sft(place, "--replay", place.made / "general", "--replay-ratio", "0.5", *order)


# --- The held-out loss -------------------------------------------------------------------------------------------


@case(CONFIGURATION, "--eval-data and --eval-split both say what is held out")
def two_held_out_sets(place: Place) -> Arguments:
    return sft(place, "--eval-data", place.made / "general", "--eval-split", "0.5")


@case(CONFIGURATION, "--early-stopping needs held-out rows: give --eval-data DATA or --eval-split")
def early_stopping_on_nothing(place: Place) -> Arguments:
    return sft(place, "--early-stopping", "2")


@case(CONFIGURATION, "--select best needs held-out rows")
def selection_by_nothing(place: Place) -> Arguments:
    return sft(place, "--select", "best")


@case(CONFIGURATION, "--min-delta is for --early-stopping")
def threshold_of_nothing(place: Place) -> Arguments:
    return sft(place, "--eval-split", "0.5", "--min-delta", "0.1")


@case(CONFIGURATION, "leaves nothing to measure on")
def split_without_rows(place: Place) -> Arguments:
    return sft(place, "--eval-split", "0.0001")


@case(CONFIGURATION, "holds rows for preference, where sft is needed")
def pairs_as_held_out_rows(place: Place) -> Arguments:
    return sft(place, "--eval-data", place.made / "pairs")


@case(CONFIGURATION, "none' does not exist")
def missing_held_out_rows(place: Place) -> Arguments:
    return sft(place, "--eval-data", place.here / "none")


@case(
    CONFIGURATION, r"(?s)trainer.eval_strategy' is decided by --eval-every.*best_model_at_end' is decided by --select"
)
def evaluation_past_its_options(place: Place) -> Arguments:
    return sft(place, "--set", "trainer.eval_strategy=steps", "--set", "trainer.load_best_model_at_end=true")


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name)
def test_bad_input(bad: Case, made: Path, cli: Cli, tmp_path: Path) -> None:
    arguments = bad.prepare(Place(tmp_path, made))
    outcome = cli(*arguments)
    check_error(outcome.err, bad.says)
    assert outcome.code == bad.code
    assert not (tmp_path / OUT).exists()
    assert leftovers(tmp_path) == []


# --- What lies there already is safe -----------------------------------------------------------------------------


def test_a_foreign_directory_is_not_touched(made: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / OUT).mkdir()
    (tmp_path / OUT / "thesis.tex").write_text("years of work")
    outcome = cli(*basis(Place(tmp_path, made), "--overwrite"))
    check_error(outcome.err, "will not be touched")
    assert outcome.code == ARTIFACT
    assert (tmp_path / OUT / "thesis.tex").read_text() == "years of work"


def test_a_result_of_other_settings_is_not_overwritten(made: Path, cli: Cli, tmp_path: Path) -> None:
    existing = shutil.copytree(made / "basis", tmp_path / OUT)
    before = (existing / "manifest.json").read_text()
    outcome = cli(*basis(Place(tmp_path, made), "--seed", "7"))
    check_error(outcome.err, "made with other settings.*--overwrite")
    assert outcome.code == ARTIFACT
    assert (existing / "manifest.json").read_text() == before
    assert leftovers(tmp_path) == []


# --- As real processes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["trian-sft"], CONFIGURATION, "did you mean"),
        (["train-sft"], CONFIGURATION, "required"),
        (["inspect", "nothing"], CONFIGURATION, "does not exist"),
        (["prepare-data", "rows.jsonl", "--out", OUT], CONFIGURATION, "rows.jsonl"),
    ],
)
def test_bad_input_to_a_real_process(arguments: list[str], code: int, says: str, tmp_path: Path) -> None:
    outcome = run_process(*arguments, cwd=tmp_path)
    check_error(outcome.err, says)
    assert outcome.code == code
    assert outcome.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"RANK": "zero", "WORLD_SIZE": "2"}, "RANK is 'zero'"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR"),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "?"}, "SLURM_"),
    ],
)
def test_damaged_surroundings(env: dict[str, str], says: str, tmp_path: Path) -> None:
    outcome = run_process("inspect", "nothing", cwd=tmp_path, env=env)
    check_error(outcome.err, says)
    assert outcome.code == CONFIGURATION


@pytest.fixture
def tiny_disk(tmp_path: Path) -> object:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs privileges")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("command", ["prepare-data", "build-basis", "train-sft"])
def test_a_full_disk(command: str, tiny_disk: Path, made: Path, cli: Cli, tmp_path: Path) -> None:
    place = Place(tmp_path, made)
    many = [{"instruction": f"Question {n}?", "output": "Answer. " * 50} for n in range(400)]
    arguments = {
        "prepare-data": ["prepare-data", place.rows("rows.jsonl", many), "--format", "alpaca"],
        "build-basis": basis(place),
        "train-sft": sft(place),
    }[command]
    outcome = cli(*arguments, "--out", tiny_disk / OUT)
    check_error(outcome.err, "(?i)no space left")
    assert outcome.code == CONFIGURATION
    assert list(tiny_disk.iterdir()) == []
