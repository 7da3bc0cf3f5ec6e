"""The memory of a command's run for ``--dry-run``: its terms on each rank, and the smallest cluster that holds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from pipelines.configs.common import EngineConfig, LoraConfig
from pipelines.configs.memory_plan import PlannedConfig
from pipelines.core.job import world_size
from pipelines.engine.deepspeed_config import deepspeed_config
from pipelines.memory.activations import Held, Pass, held_by
from pipelines.memory.clusters import RANKS, smallest_cluster
from pipelines.memory.estimate import Edits, Engine, Estimate, estimate
from pipelines.memory.shape import Lora, ModelShape, shape_of
from pipelines.models.adapter_config import read_adapter_config
from pipelines.models.files import CONFIG, read_json
from pipelines.models.loading import is_planned_only
from pipelines.models.reference import ModelSource
from pipelines.models.text_config import text_setting

Rows = list[tuple[str, str]]

_GPU_GIB: Final = 80.0
_PARTS: Final = {
    "always": "",
    "passes": "forward and backward",
    "step": "optimizer's step",
    "refresh": "reference passes",
}


@dataclass(frozen=True)
class Work:
    """What a command does with the model.

    Attributes:
        edits: what the edits of a step hold.
        trained: rows and tokens of each in a training pass; None where nothing is trained.
        reference: rows and tokens of each in a reference pass; None where there is none.
        accumulates: whether a step has several micro-batches.
    """

    edits: Edits
    trained: tuple[int, int] | None
    reference: tuple[int, int] | None = None
    accumulates: bool = True


def memory_rows(plan: Planner, config: PlannedConfig) -> Rows:
    """The rows of the plan that say what each rank holds.

    Args:
        plan: the run's estimates.
        config: the options of the command.
    """
    ranks = config.plan_ranks or max(world_size(), config.num_procs or 1)
    on_accelerator = torch.cuda.is_available() or config.plan_ranks is not None or config.plan_gpu_memory is not None
    found = plan.estimate(ranks, on_accelerator=on_accelerator)
    missing = "" if plan.counts_activations else ", without activations, which depend on this model's values"
    host = f"; {size(found.host)} in host memory" if found.host else ""
    rows = [("memory", f"{size(found.device)} per rank at {_ranks(ranks)}, {_of(plan.shape)}{host}{missing}")]
    for part, when in _PARTS.items():
        terms = [term for term in found.terms if term.part == part and (term.device or term.host)]
        if terms:
            text = ", ".join(_term(term.name, term.device, term.host) for term in terms)
            fullest = f" ({size(found.of(part))}, the fullest)" if part == found.fullest else ""
            rows.append(("", f"{when or 'always'}{fullest}: {text}"))
    return [*rows, ("smallest cluster", plan.smallest(config.plan_gpu_memory or _GPU_GIB))]


def basis_memory(config: PlannedConfig, source: ModelSource, num_rows: int, passes: tuple[int, int]) -> Rows:
    """The rows of the plan of build-basis.

    Args:
        config: the options of the command.
        source: the model.
        num_rows: rows for each parameter tensor.
        passes: rows and tokens of each in a forward pass.
    """
    shape = shape_of(
        (source.base or source).directory, lora=_lora(config, source), trust_remote_code=config.trust_remote_code
    )
    edits = Edits(rows=num_rows, row_elements=shape.num_trained, holds_rows=False)
    return memory_rows(Planner(config, source, Work(edits, None, passes)), config)


def model_text(source: ModelSource) -> str:
    """A model as the plan names it."""
    without = is_planned_only(source)
    return f"{source.reference} (its configuration alone: there are no weights here)" if without else source.reference


def size(num_bytes: float) -> str:
    """A number of bytes in MiB, or in GiB from one on."""
    unit = "MiB" if num_bytes < 2**30 else "GiB"
    return f"{num_bytes / (2**20 if unit == 'MiB' else 2**30):,.1f} {unit}"


def engine_of(config: EngineConfig, ranks: int, *, on_accelerator: bool, trains: bool = True) -> Engine:
    """How a run's options spread a model over ranks."""
    values = deepspeed_config(config, on_cpu=not on_accelerator)
    if values is None:
        return Engine(None, ranks, config.precision == "bf16", False, on_accelerator=on_accelerator, trains=trains)
    zero = values.get("zero_optimization", {})
    bf16 = bool(values.get("bf16", {}).get("enabled"))
    return Engine(
        stage=int(zero.get("stage", 0)),
        ranks=ranks,
        bf16=bf16,
        wide_sums=values.get("data_types", {}).get("grad_accum_dtype") == "fp32",
        offload=(zero.get("offload_optimizer") or {}).get("device") == "cpu",
        bucket=_number(zero.get("reduce_bucket_size"), 5e8),
        gathered=_number(zero.get("stage3_max_live_parameters"), 1e9),
        on_accelerator=on_accelerator,
        trains=trains,
    )


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default


class Planner:
    """Estimates of one run on any number of ranks; a model's configuration is enough."""

    def __init__(self, config: PlannedConfig, source: ModelSource, work: Work) -> None:
        self._config, self._work = config, work
        self._directory = (source.base or source).directory
        self._lora = _lora(config, source)
        self.shape = shape_of(self._directory, lora=self._lora, trust_remote_code=config.trust_remote_code)
        self._layers = text_setting(read_json(self._directory / CONFIG), "num_hidden_layers") or 0
        self.counts_activations = True

    def estimate(self, ranks: int, way: str = "", *, on_accelerator: bool = True) -> Estimate:
        """What each of so many ranks holds; ``way`` is one of those that need less, or empty for what is asked for."""
        changes = _WAYS[way] if way else {}
        config = self._config.model_copy(update=changes)
        work = self._work
        engine = engine_of(config, ranks, on_accelerator=on_accelerator, trains=work.trained is not None)
        return estimate(
            self.shape,
            engine,
            edits=work.edits,
            passes=self._held(config, engine, work.trained),
            refresh=self._held(config, engine, work.reference),
            accumulates=work.accumulates,
        )

    def _held(self, config: EngineConfig, engine: Engine, rows: tuple[int, int] | None) -> Held | None:
        if rows is None:
            return None
        what = Pass(
            rows=rows[0],
            length=rows[1],
            held_in_bf16=engine.width == 2,
            casts_to_bf16=engine.bf16 and engine.width == 4,
            checkpointing=config.gradient_checkpointing,
            attention=config.attention if config.attention in ("eager", "sdpa") else None,
            on_accelerator=engine.on_accelerator,
        )
        found = held_by(
            self._directory, what, self._layers, lora=self._lora, trust_remote_code=config.trust_remote_code
        )
        self.counts_activations &= found is not None
        return found or Held()

    def smallest(self, gpu_gib: float) -> str:
        """The smallest cluster as a phrase: as asked for, and in the way that needs fewest devices."""

        def device_bytes(ranks: int, way: str) -> float:
            return self.estimate(ranks, way).device

        ways = [way for way, changes in _WAYS.items() if self._is_other(changes)]
        asked = smallest_cluster(device_bytes, gpu_gib * 2**30, ("",))
        best = smallest_cluster(device_bytes, gpu_gib * 2**30, ("", *ways))
        of = f"of {gpu_gib:g} GiB"
        parts = [
            f"{_gpus(asked.ranks)} {of} as asked for" if asked else f"as asked for, none of up to {RANKS[-1]} GPUs {of}"
        ]
        if best is not None and best.options and (asked is None or best.ranks < asked.ranks):
            parts.append(f"{_gpus(best.ranks)} with {best.options}")
        elif best is None:
            parts.append("nor in any other way: try a smaller --batch-size or --max-length")
        return "; ".join(parts)

    def _is_other(self, changes: dict[str, Any]) -> bool:
        return self._config.deepspeed is None and any(getattr(self._config, key) != at for key, at in changes.items())


# Ways to need less, from the one that costs least time on.
_WAYS: Final[dict[str, dict[str, Any]]] = {
    "--zero 2": {"zero": 2},
    "--zero 2 --gradient-checkpointing": {"zero": 2, "gradient_checkpointing": True},
    "--zero 3": {"zero": 3},
    "--zero 3 --gradient-checkpointing": {"zero": 3, "gradient_checkpointing": True},
    "--zero 3 --offload --gradient-checkpointing": {"zero": 3, "offload": True, "gradient_checkpointing": True},
}


def _lora(config: LoraConfig, source: ModelSource) -> Lora | None:
    if config.lora_rank:
        return Lora(config.lora_rank, config.lora_targets)
    if not source.is_adapter:
        return None
    stored = read_adapter_config(Path(source.directory))
    targets = stored.get("target_modules")
    return Lora(int(stored.get("r", 8)), ",".join(sorted(targets)) if isinstance(targets, list) else "all-linear")


def _term(name: str, device: float, host: float) -> str:
    return f"{name} {size(host)} on the host" if host and not device else f"{name} {size(device)}"


def _of(shape: ModelShape) -> str:
    if not shape.frozen:
        return f"{shape.num_parameters:,} parameters"
    return f"{shape.num_trained:,} trained of {shape.num_parameters:,} parameters"


def _ranks(number: int) -> str:
    return f"{number} rank{'s' if number > 1 else ''}"


def _gpus(number: int) -> str:
    return f"{number} GPU{'s' if number > 1 else ''}"
