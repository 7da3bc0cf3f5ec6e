"""The prompt of a rewriter."""

from data_registry.formats.rewriting import question_text, rewriter_prompt
from data_registry.formats.transcripts import check_no_transcript
from data_registry.testbed.tokenizer import MAX_LENGTH


def test_prompt_has_all_three_texts_in_order() -> None:
    prompt = rewriter_prompt("What is 2 + 2?", "2 + 2 = 4", "2 + 2 = 5")
    places = [prompt.index(text) for text in ("What is 2 + 2?", "2 + 2 = 4", "2 + 2 = 5")]
    assert places == sorted(places)


def test_white_space_around_texts_does_not_matter() -> None:
    assert rewriter_prompt(" q\n", "\ns ", "\n\np") == rewriter_prompt("q", "s", "p")
    assert rewriter_prompt("q", "a\n\nb", "p") != rewriter_prompt("q", "a b", "p")


def test_prompt_is_not_taken_for_a_conversation_with_its_marks() -> None:
    prompt = rewriter_prompt("q", "s", "p")
    check_no_transcript({"messages": [{"role": "user", "content": prompt}]})


def test_prompt_leaves_room_for_the_texts_of_the_testbed() -> None:
    # Its tokens are words; question, solution, answer and correction have at most 72 of them together.
    assert len(rewriter_prompt("", "", "").split()) + 72 <= MAX_LENGTH


def test_question_of_one_message_is_its_text_and_of_several_names_their_roles() -> None:
    user = {"role": "user", "content": " What? "}
    assert question_text([user]) == "What?"
    several = question_text([{"role": "system", "content": "Be short."}, user])
    assert several == "System: Be short.\n\nUser: What?"
