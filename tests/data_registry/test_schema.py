"""Rows in normal form: hashes, shares of a split, and system messages."""

import hashlib

import pytest

from data_registry.schema import (
    RejectedRow,
    content_hash,
    preference_row,
    sft_row,
    split_share,
    with_system,
)
from tests.data_registry.messages import bot, system, user

# Normal form


def test_hash_tells_rows_apart_by_content_alone():
    rows = [
        sft_row([user("a"), bot("b")]),
        sft_row([user("a"), bot("b"), user("c"), bot("d")]),
        sft_row([user("ab"), bot("b")]),
        sft_row([system("a"), user("a"), bot("b")]),
        preference_row([user("a")], [bot("b")], [bot("c")]),
        preference_row([user("a")], [bot("c")], [bot("b")]),
    ]
    assert len({content_hash(row) for row in rows}) == len(rows)
    turned = {"messages": [{"content": "a", "role": "user"}, {"content": "b", "role": "assistant"}]}
    assert content_hash(rows[0]) == content_hash(turned)


def test_half_a_surrogate_pair_is_no_text():
    with pytest.raises(RejectedRow, match="surrogate"):
        content_hash(sft_row([user("\ud800"), bot("b")]))


def test_rows_with_the_same_question_are_on_the_same_side():
    question = [user("a")]
    shares = {
        split_share(sft_row([*question, bot("b")])),
        split_share(sft_row([*question, bot("other"), user("c"), bot("d")])),
        split_share(sft_row([system("s"), *question, bot("b")])),
        split_share(preference_row(question, [bot("b")], [bot("c")])),
    }
    assert len(shares) == 1
    assert split_share(sft_row([user("b"), bot("b")])) not in shares


def test_split_shares_are_even():
    shares = sorted(split_share(sft_row([user(f"question {i}"), bot("b")])) for i in range(4000))
    # Kolmogorov-Smirnov: 1.63 / sqrt(n) is passed by 1 of 100 uniform samples; this one is fixed.
    assert max(abs(share - (i + 0.5) / 4000) for i, share in enumerate(shares)) < 1.63 / 4000**0.5


def test_split_share_is_the_documented_hash():
    # A change of it would move rows that people have trained on to the held-out part.
    digest = hashlib.blake2b(digest_size=8, person=b"ogpsa split")
    for part in (b"user", b"What is 1+1?"):
        digest.update(len(part).to_bytes(8, "big") + part)
    row = sft_row([system("s"), user("What is 1+1?"), bot("2"), user("And 2+2?"), bot("4")])
    assert split_share(row) == int.from_bytes(digest.digest(), "big") / 2**64


def test_system_message_comes_first_and_replaces_the_rows_own():
    row = with_system(sft_row([user("a"), bot("b")]), "s")
    assert row["messages"][0] == system("s")
    assert with_system(row, "t")["messages"] == [system("t"), user("a"), bot("b")]
    pair = with_system(preference_row([user("a")], [bot("b")], [bot("c")]), "s")
    assert pair["prompt"] == [system("s"), user("a")]
    assert pair["chosen"] == [bot("b")]
