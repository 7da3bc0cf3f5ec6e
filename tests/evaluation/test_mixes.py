"""Mixes of two models in memory are the models that a merge makes, to the bit; judges see all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from data_registry.core.errors import InputError
from pipelines.commands import merge
from pipelines.configs.merge import MergeConfig
from pipelines.evaluation.blending import Blending
from pipelines.evaluation.contract.answer import StoredAnswer
from pipelines.evaluation.contract.verdict import judge_answers
from pipelines.evaluation.judges.registry import named_judge
from pipelines.evaluation.sweeping import judge_together
from pipelines.models.loading import load_model
from pipelines.models.reference import resolve_model
from tests.reference.merge_inputs import save_adapter, save_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixes")
    base = save_model(root / "base", 0)
    save_adapter(root / "adapter", base, 2)
    for name, seed, dtype in (("tuned", 5, torch.float32), ("rounded", 6, torch.bfloat16)):
        model = LlamaForCausalLM.from_pretrained(base)
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        model.to(dtype).save_pretrained(root / name)
    return root


def blending(made: Path, finetuned: str, other: str = "base") -> Blending:
    ends = (resolve_model(str(made / name)) for name in (finetuned, other))
    return Blending(*ends, precision="fp32", device=CPU, trust_remote_code=False)


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("finetuned", ["tuned", "rounded"])
def test_a_mix_is_the_merged_model_to_the_bit(made: Path, tmp_path: Path, finetuned: str) -> None:
    mixes = blending(made, finetuned)
    # Not in order, and the first one again: nothing is left of the mix before.
    for number, share in enumerate((0.7, 0.1, 0.7)):
        config = MergeConfig(
            finetuned=str(made / finetuned), safe=str(made / "base"), method="linear", weights=[share, 1 - share],
            out=tmp_path / str(number),
        )  # fmt: skip
        merged = load_model(resolve_model(str(merge.run(config).path)), precision="fp32")
        found, wanted = weights_of(mixes.mix(share)), weights_of(merged)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_both_ends_are_exact(made: Path) -> None:
    mixes = blending(made, "tuned")
    for share, name in ((1.0, "tuned"), (0.0, "base")):
        wanted = weights_of(load_model(resolve_model(str(made / name)), precision="fp32"))
        assert all(torch.equal(weight, wanted[key]) for key, weight in mixes.mix(share).named_parameters())


def test_an_adapter_fades_as_a_merge_with_itself_of_weight_zero(made: Path, tmp_path: Path) -> None:
    adapter = str(made / "adapter")
    config = MergeConfig(finetuned=adapter, safe=adapter, method="linear", weights=[0.3, 0], out=tmp_path / "out")
    merged = weights_of(load_model(resolve_model(str(merge.run(config).path)), precision="fp32"))
    found = weights_of(blending(made, "adapter").mix(0.3))
    base = weights_of(load_model(resolve_model(str(made / "base")), precision="fp32"))
    assert any(not torch.equal(found[name], base[name]) for name in base)
    for name, weight in merged.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-6)


def test_models_that_are_not_alike_are_refused(made: Path, tmp_path: Path) -> None:
    config = LlamaForCausalLM.from_pretrained(made / "base").config
    config.intermediate_size += 8
    LlamaForCausalLM(config).save_pretrained(tmp_path / "wider")
    with pytest.raises(InputError, match="weights are not alike") as caught:
        blending(tmp_path, str(made / "tuned"), "wider")
    assert "mlp" in str(caught.value.where)


def answers_of(texts: Sequence[str | None]) -> list[StoredAnswer]:
    return [
        StoredAnswer(
            suite="mine", id=str(index), group="harmful", category="", prompt="How?", question="How?",
            context="", expected=None, answer=text, finish="stop" if text is not None else "too_long",
            num_prompt_tokens=3, num_tokens=3,
        )
        for index, text in enumerate(texts)
    ]  # fmt: skip


def test_answers_judged_together_get_the_verdicts_that_they_get_alone() -> None:
    parts = [
        answers_of(["Sorry, I cannot help with that.", None, "Take two and stir."]),
        answers_of([None, None, None]),
        answers_of(["First, take a bowl.", "I won't do this.", None]),
    ]
    judge = named_judge("refusal")
    together = judge_together(judge, parts)
    assert together == [judge_answers(judge, part) for part in parts]
    assert [len(judged.verdicts) for judged in together] == [2, 0, 2]
