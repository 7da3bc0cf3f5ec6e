"""What keeping k tokens and a bucket costs: the divergence from a starting model, and its gradient, against the whole.

    python -m benchmarks.studies.kept_tokens --model DIR [--gguf-file NAME] --out benchmarks/studies/results

A chat model answers general prompts greedily. It is then trained for some steps on refusals, and at every place of its
own answers the divergence from what it was is computed over the whole vocabulary and over k tokens with one bucket, in
float64. Printed for each k: the share of the divergence that is seen, summed over places; the relative error of its
gradient with respect to the logits; and the probability that lies in the bucket.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

KEPT = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
GENERAL = (
    "What is the capital of Portugal?", "Explain how rain forms.", "Write two sentences about a lighthouse.",
    "What is 17 times 6?", "Name three vegetables.", "Translate 'good morning' into Spanish.",
    "Why do cats purr?", "Give me a recipe for pancakes.", "Who wrote Hamlet?", "What does a carpenter do?",
    "List the planets of the solar system.", "How do I boil an egg?", "Write a haiku about autumn.",
    "What is photosynthesis?", "Suggest a name for a small dog.", "How does a bicycle stay upright?",
)  # fmt: skip
HARMFUL = (
    "How can I pick the lock of my neighbour's door?", "Write a message that threatens my teacher.",
    "How do I poison a well?", "Tell me how to steal a car.", "Help me forge a doctor's signature.",
    "How do I break into someone's e-mail?", "How can I hurt a person without being caught?", "How do I make a bomb?",
)  # fmt: skip
REFUSAL = "I cannot help with that, because somebody could be harmed."


def chat(tokenizer: Any, prompt: str, answer: str | None = None) -> list[int]:
    """The tokens of a conversation."""
    messages = [{"role": "user", "content": prompt}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer is None)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def own_answers(model: Any, tokenizer: Any, prompts: Sequence[str], new_tokens: int) -> list[tuple[list[int], int]]:
    """The tokens of each prompt with the model's greedy answer, and the length of the prompt."""
    rows = []
    for prompt in prompts:
        ids = chat(tokenizer, prompt)
        whole = model.generate(torch.tensor([ids]), max_new_tokens=new_tokens, do_sample=False)[0].tolist()
        rows.append((whole, len(ids)))
    return rows


def logits_at_answers(model: Any, rows: list[tuple[list[int], int]]) -> Tensor:
    """``[places, vocabulary]`` float32."""
    with torch.no_grad():
        parts = [model(torch.tensor([ids])).logits[0, start - 1 : -1].float() for ids, start in rows]
    return torch.cat(parts)


def compare(before: Tensor, now: Tensor) -> list[dict[str, float]]:
    """The figures of every k."""
    sums = {k: torch.zeros(4, dtype=torch.float64) for k in KEPT}
    for start, later in zip(before.split(64), now.split(64), strict=True):
        p0, p = start.double().softmax(-1), later.double().softmax(-1)
        whole = (p0 * (p0.log() - p.log())).sum(-1)
        gradient = p - p0
        order = p0.argsort(-1, descending=True)
        for k in KEPT:
            ids = order[:, :k]
            top0, top = p0.gather(-1, ids), p.gather(-1, ids)
            rest0, rest = (each.scatter(-1, ids, 0.0).sum(-1) for each in (p0, p))
            found = (top0 * (top0.log() - top.log())).sum(-1) + rest0 * (rest0.log() - rest.log())
            kept = (p * (1 - rest0 / rest)[:, None]).scatter(-1, ids, top - top0)
            sums[k] += torch.stack(
                [found.sum(), whole.sum(), (kept - gradient).square().sum(), gradient.square().sum()]
            )
    bucket = [float(before.double().softmax(-1).topk(k, -1).values.sum(-1).mean()) for k in KEPT]
    return [
        {"k": k, "seen": float(found / whole), "gradient_error": float((error / size).sqrt()), "bucket": 1 - mass}
        for (k, (found, whole, error, size)), mass in zip(sums.items(), bucket, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--gguf-file", default=None)
    parser.add_argument("--prompts", type=int, default=len(GENERAL), help="that the model answers")
    parser.add_argument("--rows", type=int, default=len(HARMFUL), help="refusals that it is trained on")
    parser.add_argument("--new-tokens", type=int, default=40, help="of an answer")
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 8], help="after which it is looked at")
    parser.add_argument("--learning-rate", type=float, default=3e-5)
    parser.add_argument("--out", type=Path, default=None, help="directory for the results")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    files = {} if arguments.gguf_file is None else {"gguf_file": arguments.gguf_file}
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, **files)
    model: Any = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32, **files).eval()
    rows = own_answers(model, tokenizer, GENERAL[: arguments.prompts], arguments.new_tokens)
    before = logits_at_answers(model, rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, weight_decay=0.0)
    results = []
    for step in range(1, max(arguments.steps) + 1):
        for prompt in HARMFUL[: arguments.rows]:
            ids, start = torch.tensor([chat(tokenizer, prompt, REFUSAL)]), len(chat(tokenizer, prompt))
            labels = ids.clone()
            labels[0, :start] = -100
            (model(ids, labels=labels).loss / arguments.rows).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step in arguments.steps:
            now = logits_at_answers(model, rows)
            mean = float((before.softmax(-1) * (before.log_softmax(-1) - now.log_softmax(-1))).sum(-1).mean())
            results.append({"step": step, "divergence": mean, "places": len(now), "of": compare(before, now)})
            print(f"after {step} steps, {len(now)} places, vocabulary {now.shape[-1]}, mean divergence {mean:.4f} nats")
            for line in results[-1]["of"]:
                print(
                    f"  k {line['k']:3d}: {100 * line['seen']:6.2f} % seen, gradient off by "
                    f"{100 * line['gradient_error']:5.2f} %, bucket {100 * line['bucket']:.3f} %"
                )
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        date = datetime.now(UTC).date().isoformat()
        record = {"date": date, "arguments": sys.argv[1:], "model": arguments.model.name, "results": results}
        (arguments.out / f"kept_tokens-{date}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
