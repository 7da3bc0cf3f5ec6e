"""One rank alone gets a real signal in work that ranks do together before training: both end, and both can do it again.

For workers that run on two ranks; collective.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_registry.core import stopping
from data_registry.core.errors import Preempted
from pipelines.commands import build_basis
from pipelines.configs.build_basis import BuildBasisConfig
from pipelines.configs.train import TrainDpoConfig
from pipelines.core.job import gather, on_main, rank
from pipelines.training.data import reference_log_probs
from tests.distributed.ranks import forget_engine
from tests.faults.points import Point, armed

Finding = dict[str, Any]


def stopped_in_basis(directory: Path, model: Path, references: Sequence[Path], **engine: Any) -> Finding:
    """Among the batches of reference gradients."""

    def build(name: str) -> Path:
        forget_engine()
        return build_basis.run(
            BuildBasisConfig(
                model=str(model), reference=list(references), out=directory / name, precision="fp32", batch_size=3,
                max_length=64, **engine,
            )
        ).path  # fmt: skip

    whole = build("undisturbed")
    access = "Zero12Access" if engine.get("zero") == 2 else "ReplicatedAccess"
    point = Point(f"pipelines.engine.shards.opening:{access}.accumulate", call=2, ranks=(1,))
    said = _stopped(lambda: build("stopped"), point, directory)
    left = sorted(path.name for path in directory.iterdir() if path.name not in ("undisturbed", "mark-1"))
    same = _contents(build("stopped")) == _contents(whole)
    return {"said": said, "left": left, "same": same}


def stopped_in_reference_logps(config: TrainDpoConfig, train: Callable[[TrainDpoConfig], Path], other: Path) -> Finding:
    """Among the batches of reference log-probabilities.

    Args:
        config: of a run whose directory has no store yet.
        train: the recipe.
        other: a store with those of the same model and data.
    """
    directory = config.out.parent
    on_main(lambda: directory.mkdir(parents=True, exist_ok=True))
    point = Point("pipelines.passes.log_probs:token_log_probs", call=2, ranks=(1,))
    said = _stopped(lambda: train(config), point, directory)
    left = sorted(path.name for path in directory.rglob("*") if path.is_file() and path.name != "mark-1")
    train(config)
    (made,) = (directory / reference_log_probs.FOLDER).glob(f"*/{reference_log_probs.FILE}")
    return {"said": said, "left": left, "same": made.read_bytes() in {path.read_bytes() for path in other.glob("*/*")}}


def _stopped(work: Callable[[], object], point: Point, directory: Path) -> list[str]:
    """What each rank ended with."""
    stopping.listen()
    try:
        with armed([point], directory / f"mark-{rank()}"):
            work()
        said = "it was not stopped"
    except Preempted as error:
        said = f"{error.exit_code}: {error}"
    finally:
        stopping._received = None
    return gather(said)


def _contents(basis: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in basis.glob("*.safetensors")}
