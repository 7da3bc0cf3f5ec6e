"""The order of a recipe's steps."""

from __future__ import annotations

import itertools
import random

import pytest

from data_registry.core.errors import ConfigError
from pipelines.recipes.references import in_order


def first_that_may(needs: dict[str, set[str]]) -> list[str]:
    """Again and again the first step, as the recipe has them, whose needs are done; what is in a circle never is."""
    done: list[str] = []
    while ready := [name for name in needs if name not in done and needs[name] <= set(done)]:
        done.append(ready[0])
    return done


@pytest.mark.parametrize("seed", range(40))
def test_steps_come_as_early_as_they_may_and_a_circle_is_shown(seed: int) -> None:
    draw = random.Random(seed)
    names = [f"step-{number}" for number in range(draw.randint(1, 9))]
    draw.shuffle(names)
    needs = {name: {other for other in names if other != name and draw.random() < 0.15} for name in names}
    order = first_that_may(needs)
    if len(order) == len(names):
        assert in_order(needs) == order
        return
    with pytest.raises(ConfigError, match="in a circle: ") as caught:
        in_order(needs)
    circle = str(caught.value).split("in a circle: ")[1].splitlines()[0].split(" -> ")
    assert circle[0] == circle[-1]
    assert all(needed in needs[name] for name, needed in itertools.pairwise(circle))
