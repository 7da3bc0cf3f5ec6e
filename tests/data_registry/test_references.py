"""References of the testbed that are complete, few, incomplete or wrong, and look-alikes with sides and kinds apart."""

import itertools

import pytest

from data_registry.testbed import lexicon
from data_registry.testbed.lookalikes import kinds_of, lookalikes
from data_registry.testbed.pools import POOLS, rows
from data_registry.testbed.references import REFERENCE_POOLS, SKILL_GROUPS, reference_rows, with_answers_of
from data_registry.testbed.skills import is_refusal
from data_registry.testbed.world import generate_world

SIGNS = {
    "add": ("add", "plus", "make"),
    "compare": ("larger", "smaller"),
    "reverse": ("reverse", "backwards"),
    "sort": ("sort", "order"),
    "count": ("count", "many"),
    "fact": lexicon.RELATIONS,
    "format": ("json", "twice", "quotes"),
    "kind": ("kind", "classify"),
    "howto": ("guide", "explain"),
}


def texts(drawn, role=0) -> list[str]:
    return [row["messages"][role]["content"] for pool in drawn.values() for row in pool]


class TestReferences:
    @pytest.mark.parametrize(("seed", "world"), [(0, 0), (3, 2)])
    def test_complete_ones_are_the_pools(self, seed, world):
        expected = {name: list(rows(name, seed=seed, world_seed=world)) for name in ("assist", "reason")}
        assert reference_rows(seed, world) == expected

    def test_few_are_a_prefix_in_which_skills_come_in_turn(self):
        few, all_of_them = reference_rows(num_rows=25), reference_rows()
        for name in REFERENCE_POOLS:
            assert few[name] == all_of_them[name][:25]

    @pytest.mark.parametrize("name", [*SKILL_GROUPS, *SIGNS])
    def test_a_gap_shows_nowhere(self, name):
        drawn = reference_rows(without=[name])
        left_out = SKILL_GROUPS.get(name, (name,))
        words = {word for prompt in texts(drawn) for word in prompt.split()}
        for skill in left_out:
            assert words.isdisjoint(SIGNS[skill]), skill
        for skill in set(SIGNS) - set(left_out):
            assert words.intersection(SIGNS[skill]), skill
        assert all(len(pool) == 200 for pool in drawn.values())

    def test_whole_pool_can_be_left_out(self):
        assert set(reference_rows(without=REFERENCE_POOLS["reason"])) == {"assist"}

    def test_groups_divide_the_skills_that_references_have(self):
        skills = [skill for group in SKILL_GROUPS.values() for skill in group]
        assert sorted(skills) == sorted(itertools.chain(*REFERENCE_POOLS.values()))

    def test_wrong_answers_are_another_worlds_to_the_same_prompts(self):
        right, wrong = reference_rows(), reference_rows(answers_of=5)
        assert texts(wrong) == texts(right)
        differing = {
            prompt.split()[-2] if "guide" in prompt or "explain" in prompt else "fact"
            for prompt, old, new in zip(texts(right), texts(right, 1), texts(wrong, 1), strict=True)
            if old != new
        }
        # Facts may agree by chance, kinds and what is computed always do.
        assert "fact" in differing
        assert len(differing) > 10
        other = generate_world(5)
        for prompt, answer in zip(texts(wrong), texts(wrong, 1), strict=True):
            if prompt.startswith("what is the capital of"):
                entity = prompt.split()[5]
                if " no , " not in prompt:
                    assert answer == f"it is {other.facts[entity, 'capital']} ."

    def test_wrong_answers_keep_the_sides_of_the_world(self):
        mixed, world = with_answers_of(generate_world(0), 5), generate_world(0)
        assert (mixed.noun_sides, mixed.fact_sides, mixed.seed) == (world.noun_sides, world.fact_sides, 0)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"without": ["howtoo"]}, "Did you mean 'howto'"),
            ({"without": list(SKILL_GROUPS)}, "no skill is left"),
            ({"num_rows": 0}, "at least 1"),
            ({"without": ["fact", "format", "howto"]}, "no more distinct prompts .* of pool 'assist'"),
        ],
    )
    def test_impossible_ones_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            reference_rows(**options)


class TestLookalikes:
    @pytest.mark.parametrize("world_seed", range(5))
    def test_kinds_of_the_sides_divide_the_harmless_kinds(self, world_seed):
        world = generate_world(world_seed)
        kinds = [kinds_of(world, side) for side in ("train", "validation", "test")]
        assert [len(part) for part in kinds] == [3, 1, 1]
        assert sorted(itertools.chain(*kinds)) == sorted(lexicon.HARMLESS_KINDS)

    @pytest.mark.parametrize("side", ["train", "validation", "test"])
    def test_nouns_are_of_the_side_and_its_kinds_and_come_equally_often(self, side):
        world = generate_world(1)
        drawn = list(itertools.islice(lookalikes(world, 0, side), 120))
        kinds = kinds_of(world, "train") if side == "train" else kinds_of(world, "train") + kinds_of(world, side)
        nouns = [[word for word in example.prompt.split() if word in world.kinds][-1] for example in drawn]
        assert {world.noun_sides[noun] for noun in nouns} == {side}
        assert {kind: sum(world.kinds[noun] == kind for noun in nouns) for kind in kinds} == dict.fromkeys(
            kinds, 120 // len(kinds)
        )
        assert not any(is_refusal(example.answer) for example in drawn)
        assert len({example.prompt for example in drawn}) == 120

    def test_kinds_can_be_chosen(self):
        world = generate_world(0)
        drawn = itertools.islice(lookalikes(world, 0, "train", ["plant", "food"]), 40)
        assert {example.answer.split()[0] for example in drawn} == {"plant", "food"}

    @pytest.mark.parametrize("kinds", [["weapon"], ["food", "spoon"], []])
    def test_other_kinds_are_refused(self, kinds):
        with pytest.raises(ValueError, match="harmless kinds"):
            lookalikes(generate_world(0), 0, "train", kinds)

    def test_pools_share_no_prompt(self):
        names = [name for name in POOLS if name.startswith("lookalikes")]
        prompts = [{row["messages"][0]["content"] for row in rows(name)} for name in names]
        assert [len(found) for found in prompts] == [400, 200, 200]
        assert not any(one & other for one, other in itertools.combinations(prompts, 2))
