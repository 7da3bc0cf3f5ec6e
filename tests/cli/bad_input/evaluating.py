"""Evaluation that cannot be done as it is asked for."""

from __future__ import annotations

from pathlib import Path

from tests.cli.bad_input.cases import ARTIFACT, CONFIGURATION, NUMERICS, OUT, Arguments, Place, case, model_of_nan


def evaluate(place: Place, *options: str | Path, model: Path | None = None) -> Arguments:
    """An evaluate command, complete but for the suite."""
    return ["evaluate", model or place.made / "model", "--out", OUT, *options]


@case(NUMERICS, "(?i)not finite|nan")
def evaluation_of_nan(place: Place) -> Arguments:
    return evaluate(place, "--suite", "reference-loss", "--data", place.made / "general", model=model_of_nan(place))


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


@case(CONFIGURATION, "--top-p needs --temperature")
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


@case(CONFIGURATION, "the chat template refuses the conversation: ZeroDivisionError: division by zero")
def template_that_fails(place: Place) -> Arguments:
    template = place.file("own.jinja", "{{ 1 / 0 }}")
    return evaluate(place, "--suite", "testbed", "--num-samples", "1", "--chat-template", template)


@case(ARTIFACT, "is a dataset, where a results is needed")
def judging_again_something_else(place: Place) -> Arguments:
    return ["evaluate", "--rejudge", place.made / "general", "--out", OUT]


@case(CONFIGURATION, "MODEL does not go with --rejudge: leave it out")
def judging_again_with_a_model(place: Place) -> Arguments:
    return evaluate(place, "--rejudge", place.made / "general")
