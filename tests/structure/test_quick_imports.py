"""What nobody should wait for is imported without libraries that take seconds, through all files in between."""

from __future__ import annotations

import pytest

from pipelines.core.looking import HEAVY
from tests.structure.code import project_imports, read_modules

MODULES = read_modules()
# scipy belongs to figures, and pandas to what nobody here reads.
SLOW = {*HEAVY, "matplotlib", "pandas", "safetensors.torch", "scipy", "vllm"}

# A module, and what it must not import as it is imported itself, nor through any file that it imports then.
QUICK = {
    **{f"pipelines.commands.{name}": SLOW for name in (
        "build_basis", "chat", "clean", "doctor", "evaluate", "import_model", "inspect", "judge", "prepare_data",
        "quickstart", "report", "run", "sample", "slurm", "testbed", "train_dpo", "train_npo", "train_sft",
    )},
    # Where commands find out whether their artifact is there.
    "pipelines.training.finding": SLOW,
    "pipelines.training.inputs": SLOW,
    "pipelines.basis.inputs": SLOW,
    "pipelines.basis.objectives.preference": SLOW,
    "pipelines.basis.objectives.token_pairs": SLOW,
    "pipelines.sampling.inputs": SLOW,
    "pipelines.evaluation.suites.prepared_data": SLOW,
    "pipelines.evaluation.suites.prompts": SLOW,
    "pipelines.evaluation.suites.testbed": SLOW,
    "pipelines.evaluation.rejudging": SLOW,
    "data_registry.prepared": {*SLOW, "numpy", "pyarrow"},
    # Training needs torch and its like at once, and these only for some runs, or at the end.
    "pipelines.training.sft": {"deepspeed", "lm_eval", "matplotlib", "pandas", "scipy", "vllm"},
    "pipelines.training.dpo": {"deepspeed", "lm_eval", "matplotlib", "pandas", "scipy", "vllm"},
    "pipelines.training.npo": {"deepspeed", "lm_eval", "matplotlib", "pandas", "scipy", "vllm"},
}  # fmt: skip


def early_imports(name: str) -> dict[str, str]:
    """The libraries that come with a module, each with the chain of files that leads to it."""
    found: dict[str, str] = {}
    chains = {name: name}
    waiting = [name]
    while waiting:
        module = waiting.pop()
        for imported in MODULES[module].imports():
            if imported.early:
                found.setdefault(imported.module, f"{chains[module]} > {imported.module}")
        below = [other.name for other, imported in project_imports(MODULES[module], MODULES) if imported.early]
        parents = [other.rpartition(".")[0] for other in (module, *below)]
        for other in (*below, *(parent for parent in parents if parent in MODULES)):
            if other not in chains:
                chains[other] = f"{chains[module]} > {other}"
                waiting.append(other)
    return found


@pytest.mark.parametrize("name", QUICK)
def test_it_is_imported_without_what_takes_long(name: str) -> None:
    slow = [
        chain
        for module, chain in early_imports(name).items()
        if any(f"{module}.".startswith(f"{library}.") for library in QUICK[name])
    ]
    assert not slow, "import it inside the function that needs it"


def test_the_search_goes_through_files() -> None:
    assert any(module.startswith("torch") for module in early_imports("pipelines.training.run"))
    assert not any(module.startswith("torch") for module in early_imports("pipelines.configs.train"))
