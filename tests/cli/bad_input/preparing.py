"""Sources that cannot be prepared, and places where nothing can be written."""

from __future__ import annotations

import gzip
import json
import os

from tests.cli.bad_input.cases import ALPACA, CONFIGURATION, OUT, Arguments, Place, case, prepare


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


@case(CONFIGURATION, "rows.jsonl' is a named pipe, where a file that can be read twice is needed")
def named_pipe(place: Place) -> Arguments:
    os.mkfifo(place.here / "rows.jsonl")
    return prepare(place.here / "rows.jsonl")


@case(CONFIGURATION, "options.yaml', a link to '/dev/zero', is a device, where a configuration file is needed")
def device_as_configuration(place: Place) -> Arguments:
    (place.here / "options.yaml").symlink_to("/dev/zero")
    return prepare(place.rows("rows.jsonl", [ALPACA]), "--config", place.here / "options.yaml")


@case(CONFIGURATION, "with its aliases written out it has more than")
def configuration_without_bound(place: Place) -> Arguments:
    levels = "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    options = place.file("options.yaml", f"a0: &a0 [{','.join('1' * 10)}]\n{levels}")
    return prepare(place.rows("rows.jsonl", [ALPACA]), "--config", options)


@case(CONFIGURATION, "that folder alone")
def folder_whose_card_leads_out_of_it(place: Place) -> Arguments:
    rows = place.rows("rows.jsonl", [ALPACA])
    (place.here / "folder").mkdir()
    place.file("folder/README.md", f"---\nconfigs:\n- config_name: default\n  data_files: ../{rows.name}\n---\n")
    return prepare(place.here / "folder")


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


@case(CONFIGURATION, "messages.tool_calls.*--ignore-columns messages.tool_calls")
def answers_that_call_tools(place: Place) -> Arguments:
    answer = {"role": "assistant", "content": "Let me look.", "tool_calls": [{"type": "function"}]}
    return prepare(place.rows("rows.jsonl", [{"messages": [{"role": "user", "content": "Who?"}, answer]}]))


@case(CONFIGURATION, "no usable row.*2 marked as not to be learnt")
def answers_that_are_all_undesired(place: Place) -> Arguments:
    rows = [{"prompt": f"Question {n}?", "completion": "Harm.", "label": False} for n in range(2)]
    return prepare(place.rows("rows.jsonl", rows))


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


@case(CONFIGURATION, "is a link that leads to itself")
def link_in_a_circle(place: Place) -> Arguments:
    (place.here / "one").symlink_to("two")
    (place.here / "two").symlink_to("one")
    return ["prepare-data", place.rows("rows.jsonl", [ALPACA]), "--out", "one"]


@case(CONFIGURATION, "is a link to .*is its disk mounted")
def link_to_a_disk_that_is_not_there(place: Place) -> Arguments:
    (place.here / "run").symlink_to("scratch/me/run")
    return ["prepare-data", place.rows("rows.jsonl", [ALPACA]), "--out", "run"]


@case(CONFIGURATION, "is the working directory, or above it")
def working_directory_as_output(place: Place) -> Arguments:
    made = place.made / "general"
    (place.here / "manifest.json").write_text((made / "manifest.json").read_text())
    return ["prepare-data", place.rows("rows.jsonl", [ALPACA]), "--out", ".", "--overwrite"]


@case(CONFIGURATION, "is a data set, and no samples, which --format samples reads.*ogpsa sample MODEL")
def pairs_of_a_data_set_without_answers_of_a_model(place: Place) -> Arguments:
    return prepare(place.made / "general", "--format", "samples")


@case(CONFIGURATION, "rows.jsonl' is no folder of samples")
def pairs_of_a_file(place: Place) -> Arguments:
    return prepare(place.rows("rows.jsonl", [ALPACA]), "--format", "samples", "--seed", "42")


@case(CONFIGURATION, "--pairs-per-prompt needs --format samples.*--missing needs --format samples")
def options_of_samples_for_a_file(place: Place) -> Arguments:
    return prepare(place.rows("rows.jsonl", [ALPACA]), "--pairs-per-prompt", "5", "--missing", "drop")


@case(CONFIGURATION, "2 of 2 rows .* cannot be used.*there is no 'correction' among the columns question, solution")
def corrected_answers_without_their_corrections(place: Place) -> Arguments:
    row = {"question": "q", "solution": "s", "prediction": "p"}
    return prepare(place.rows("rows.jsonl", [row, {**row, "question": "r"}]), "--format", "rewrite")


@case(CONFIGURATION, "prompts without answers, so that --grade number has nothing to grade by")
def grades_of_prompts_without_answers(place: Place) -> Arguments:
    return ["sample", place.made / "model", "--data", "lookalikes-train", "--grade", "number", "--out", OUT]


@case(CONFIGURATION, r"the answer of row 0 of '.*safety' has no number, and --grade number grades by it")
def numbers_of_answers_without_numbers(place: Place) -> Arguments:
    return ["sample", place.made / "model", "--data", place.made / "safety", "--grade", "number", "--out", OUT]
