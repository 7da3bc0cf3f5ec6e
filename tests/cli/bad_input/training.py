"""Training that cannot be done as it is asked for."""

from __future__ import annotations

from pathlib import Path

from tests.cli.bad_input.cases import (
    CONFIGURATION,
    NUMERICS,
    OUT,
    Arguments,
    Place,
    basis,
    case,
    model_of_nan,
    sft,
    with_options,
)


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


@case(CONFIGURATION, "deepspeed.json")
def missing_deepspeed_file(place: Place) -> Arguments:
    return sft(place, "--deepspeed", place.here / "deepspeed.json")


@case(CONFIGURATION, "(?i)json|deepspeed")
def broken_deepspeed_file(place: Place) -> Arguments:
    return sft(place, "--deepspeed", place.file("deepspeed.json", '{"zero_optimization": '))


@case(CONFIGURATION, "--schedule cosine_with_min_lr: .*min_lr")
def schedule_without_its_options(place: Place) -> Arguments:
    return sft(place, "--schedule", "cosine_with_min_lr")


@case(CONFIGURATION, "rows are longer than the 4 positions of the model[\\s\\S]*--drop-too-long")
def rows_longer_than_the_positions(place: Place) -> Arguments:
    return sft(place, model=place.changed_model(max_position_embeddings=4))


@case(CONFIGURATION, "the tokenizer gives token \\d+, and the model has embeddings for 9 only")
def tokens_without_embeddings(place: Place) -> Arguments:
    return basis(place, model=place.changed_model(vocab_size=9))


def dpo(place: Place, *options: str | Path, data: Path) -> Arguments:
    """A train-dpo command that would work, but for what a case changes."""
    arguments = ["train-dpo", place.made / "model", "--data", data, "--max-steps", "1", "--precision", "fp32"]
    return with_options([*arguments, "--accumulation", "1", "--out", OUT], *options)


@case(CONFIGURATION, "rows for sft, where preference is needed")
def preferences_from_conversations(place: Place) -> Arguments:
    return dpo(place, data=place.made / "safety")


@case(CONFIGURATION, "unknown loss 'sigmoyd' \\(did you mean 'sigmoid'")
def unknown_preference_loss(place: Place) -> Arguments:
    return dpo(place, "--loss", "sigmoyd", data=place.made / "pairs")


def npo(place: Place, *options: str | Path, data: Path | None = None) -> Arguments:
    """A train-npo command that would work, but for what a case changes."""
    arguments = ["train-npo", place.made / "model", "--data", data or place.made / "pairs", "--max-steps", "1"]
    return with_options([*arguments, "--precision", "fp32", "--accumulation", "1", "--out", OUT], *options)


@case(CONFIGURATION, "rows for sft, where preference is needed")
def answers_to_forget_from_conversations(place: Place) -> Arguments:
    return npo(place, data=place.made / "safety")


@case(CONFIGURATION, "--gamma needs --loss simnpo")
def gamma_of_another_loss(place: Place) -> Arguments:
    return npo(place, "--gamma", "0.5", "--loss", "npo")


@case(CONFIGURATION, "--beta: must be greater than 0")
def forgetting_without_strength(place: Place) -> Arguments:
    return npo(place, "--beta", "0")


@case(CONFIGURATION, "--loss: must be 'npo-token', 'npo' or 'simnpo', got 'sigmoid'")
def a_preference_loss_to_forget_by(place: Place) -> Arguments:
    return npo(place, "--loss", "sigmoid")


@case(CONFIGURATION, "--preset paper has no values for train-npo")
def preset_of_another_method(place: Place) -> Arguments:
    return npo(place, "--preset", "paper")


@case(CONFIGURATION, "trainer.loss_type' is decided by --loss")
def loss_of_forgetting_past_its_option(place: Place) -> Arguments:
    return npo(place, "--set", "trainer.loss_type=dft")


@case(CONFIGURATION, "the chosen completion has no token within the first")
def preferences_longer_than_allowed(place: Place) -> Arguments:
    return dpo(place, "--max-length", "4", data=place.made / "pairs")


@case(CONFIGURATION, "rows for sft, where preference is needed")
def preference_objective_on_conversations(place: Place) -> Arguments:
    return basis(place, "--objective", "dpo")


@case(CONFIGURATION, "'trainer.beta' is decided by --beta")
def option_of_ours_through_the_trainer(place: Place) -> Arguments:
    return dpo(place, "--set", "trainer.beta=0.3", data=place.made / "pairs")


@case(CONFIGURATION, "--seed needs --retrain")
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


@case(CONFIGURATION, "trainer.packing' is decided by --packing")
def packing_past_its_option(place: Place) -> Arguments:
    return sft(place, "--set", "trainer.packing=true")


@case(CONFIGURATION, "packing_strategy' is decided by --packing, which keeps rows whole and apart")
def packing_that_cuts_rows(place: Place) -> Arguments:
    return sft(place, "--packing", "--set", "trainer.packing_strategy=wrapped")


@case(CONFIGURATION, "trainer.loss_type' is decided by ogpsa, whose SFT is by cross-entropy")
def another_loss_of_sft(place: Place) -> Arguments:
    return sft(place, "--set", "trainer.loss_type=dft")


@case(CONFIGURATION, "trainer.dataset_num_proc' would have no effect: rows are tokenised beforehand")
def processes_that_would_have_nothing_to_do(place: Place) -> Arguments:
    return sft(place, "--set", "trainer.dataset_num_proc=2")


@case(CONFIGURATION, "--replay needs --replay-ratio")
def replay_without_a_ratio(place: Place) -> Arguments:
    return sft(place, "--replay", place.made / "general")


@case(CONFIGURATION, "--replay-ratio: must be less than 1")
def nothing_but_replay(place: Place) -> Arguments:
    return sft(place, "--replay", place.made / "general", "--replay-ratio", "1")


@case(CONFIGURATION, "less than half a row of replay an epoch")
def less_than_a_row_of_replay(place: Place) -> Arguments:
    return sft(place, "--replay", place.made / "general", "--replay-ratio", "0.01", "--replay-mean", "pooled")


@case(CONFIGURATION, "holds rows for preference, where sft is needed")
def pairs_as_replay(place: Place) -> Arguments:
    return sft(place, "--replay", place.made / "pairs", "--replay-ratio", "0.5")


@case(CONFIGURATION, "does not go with --replay, which decides the order")
def two_orders_of_the_rows(place: Place) -> Arguments:
    order = ["--set", "trainer.train_sampling_strategy=sequential"]
    return sft(place, "--replay", place.made / "general", "--replay-ratio", "0.5", "--replay-mean", "pooled", *order)


@case(CONFIGURATION, "--eval-data and --eval-split both say what is held out")
def two_held_out_sets(place: Place) -> Arguments:
    return sft(place, "--eval-data", place.made / "general", "--eval-split", "0.5")


@case(CONFIGURATION, "--early-stopping needs --eval-data or --eval-split")
def early_stopping_on_nothing(place: Place) -> Arguments:
    return sft(place, "--early-stopping", "2")


@case(CONFIGURATION, "--select best needs --eval-data or --eval-split")
def selection_by_nothing(place: Place) -> Arguments:
    return sft(place, "--select", "best")


@case(CONFIGURATION, "--min-delta needs --early-stopping")
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


@case(CONFIGURATION, "(?i)warmup-steps.*2.7 is neither a whole number of steps nor a share")
def warm_up_of_a_broken_number_of_steps(place: Place) -> Arguments:
    return sft(place, "--warmup-steps", "2.7")


@case(CONFIGURATION, "reduce_lr_on_plateau goes by the trainer's own evaluation")
def schedule_that_would_wait_for_ever(place: Place) -> Arguments:
    return sft(place, "--schedule", "reduce_lr_on_plateau")


@case(CONFIGURATION, "trainer.accelerator_config' is decided by ogpsa")
def rows_dealt_in_another_way(place: Place) -> Arguments:
    return sft(place, "--set", "trainer.accelerator_config={even_batches: true}")
