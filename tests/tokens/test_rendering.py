"""Whatever a chat template does, it is the template's error, and it ends."""

from __future__ import annotations

import copy
import functools
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from data_registry.core.errors import InputError
from data_registry.testbed import MODEL_DIR
from pipelines.tokens import rendering
from pipelines.tokens.chat_template import render_prompt
from pipelines.tokens.conversations import encode
from pipelines.tokens.rendering import EndlessTemplateError, render_template
from pipelines.tokens.tokenizer import load_tokenizer

ASKED = [{"role": "user", "content": "how many ?"}]
TOLD = [*ASKED, {"role": "assistant", "content": "three ."}]
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}x"


@functools.cache
def _tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(MODEL_DIR)


def tokenizer_with_template(template: str) -> PreTrainedTokenizerBase:
    """The one tokenizer, which is only read, with another template."""
    tokenizer = _tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def tokenizer_with(template: str) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(MODEL_DIR)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ('{{ raise_exception("only one question, please") }}', "only one question, please"),
        ("{{ messages[0].nothing.at_all }}", "has no attribute 'nothing'"),
        ("{% for %}", "it is not Jinja: .* [(]line 1[)]"),
        ('{% include "/etc/passwd" %}', "TypeError: no loader"),
        ('{{ "".__class__.__mro__ }}', "unsafe"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ 1 + messages }}", "TypeError: unsupported operand"),
        ("{{ 10 ** 400 * 1.5 }}", "OverflowError: int too large"),
        ("{{ messages[0]['content'] | int(base=99) }}{{ range(10 ** 9) }}", "Range too big|base must be"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "RecursionError"),
        ("{{ messages | tojson(indent='x' * 3) }}{{ messages[7]['role'] }}", "undefined|has no element"),
        ("{{ messages | nosuchfilter }}", "it is not Jinja: No filter named"),
        ("", "empty text"),
        ("{# nothing but a remark #}", "empty text"),
    ],
)
def test_whatever_a_template_raises_is_its_refusal(template: str, reason: str) -> None:
    tokenizer = tokenizer_with(template)
    for render in (lambda: render_prompt(ASKED, tokenizer), lambda: encode(TOLD, tokenizer)):
        with pytest.raises(InputError, match=f"^the chat template refuses the conversation: .*({reason})") as caught:
            render()
        assert "\n" not in caught.value.what
        assert "--chat-template" in str(caught.value.fix)


@pytest.mark.parametrize("mark", ["{{ 1 / 0 }}", "{{ messages.none.x }}"])
def test_templates_that_mark_answers_too(mark: str) -> None:
    template = (
        f"{{% for m in messages %}}{{% generation %}}{mark}{{{{ m.content }}}}{{% endgeneration %}}{{% endfor %}}"
    )
    with pytest.raises(InputError, match="the chat template refuses the conversation"):
        encode(TOLD, tokenizer_with(template))


VALUES = ("messages", "messages[0]", "messages[9]", "m.content", "m['role']", "bos_token", "tools", "nothing", "1", "0",
          "'%s'", "[]", "{}", "none", "loop.index", "add_generation_prompt", "range(9)", "10 ** 99", "raise_exception",
          "strftime_now", "lipsum", "cycler", "namespace(x=1)", "self", "1.5", "'a'.join")  # fmt: skip
OPERATORS = ("+", "-", "*", "/", "//", "%", "~", "<", "in", "is", "|", "and", ".", "**")
FILTERS = (
    "tojson",
    "trim",
    "length",
    "first",
    "int",
    "list",
    "join",
    "format",
    "sort",
    "map",
    "none",
    "batch(0)",
    "round",
)
expressions = st.recursive(
    st.sampled_from(VALUES),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(OPERATORS), inner).map(" ".join),
        st.tuples(inner, st.sampled_from(FILTERS)).map(" | ".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]})[{pair[1]}]"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]})({pair[1]})"),
    ),
    max_leaves=4,
)
statements = st.one_of(
    expressions.map(lambda text: f"{{{{ {text} }}}}"),
    st.tuples(expressions, expressions).map(
        lambda pair: f"{{% for m in {pair[0]} %}}{{{{ {pair[1]} }}}}{{% endfor %}}"
    ),
    expressions.map(lambda text: f"{{% if {text} %}}a{{% endif %}}"),
    expressions.map(lambda text: f"{{% set m = {text} %}}"),
    expressions.map(lambda text: f"{{% generation %}}{{{{ {text} }}}}{{% endgeneration %}}"),
    st.sampled_from(
        ["{%", "}}", "{% endfor %}", "{% else %}", "text ", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"]
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(statements, min_size=1, max_size=4).map("".join))
def test_any_template_makes_a_text_or_is_refused(template: str) -> None:
    tokenizer = tokenizer_with_template(template)
    for render in (lambda: render_prompt(ASKED, tokenizer), lambda: str(encode(TOLD, tokenizer))):
        try:
            told = render()
        except InputError as error:
            told = error.what
        assert told


def test_a_long_reason_is_cut() -> None:
    with pytest.raises(InputError) as caught:
        render_template(tokenizer_with("{{ raise_exception('never ' * 5000) }}"), ASKED)
    assert len(caught.value.what) < 400


@pytest.mark.parametrize("template", [LOOP, "{{ 9 ** (9 ** 9) }}"], ids=["loop", "one expression"])
def test_a_template_that_does_not_end_is_ended(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "TIME_LIMIT_S", 0.1)
    handler = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(EndlessTemplateError, match=r"has not ended after 0\.1 s of work"):
        render_template(tokenizer_with(template), ASKED)
    assert signal.getsignal(signal.SIGVTALRM) is handler
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    # Nothing is left of the limit.
    assert render_template(tokenizer_with("{{ messages[0].content }}"), ASKED) == "how many ?"


def test_it_is_ended_in_another_thread_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "TIME_LIMIT_S", 0.1)
    tokenizer = tokenizer_with(LOOP)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            render_template(tokenizer, ASKED)
        except InputError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [type(error) for error in raised] == [EndlessTemplateError]


def test_a_template_given_as_a_file_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "TIME_LIMIT_S", 0.1)
    file = tmp_path / "own.jinja"
    file.write_text(LOOP)
    with pytest.raises(EndlessTemplateError) as caught:
        load_tokenizer(MODEL_DIR, chat_template=file)
    assert caught.value.where == str(file)
    file.write_text("{{ messages[1].content }}")  # It demands an answer.
    assert load_tokenizer(MODEL_DIR, chat_template=file).chat_template == "{{ messages[1].content }}"


def _with_template(template: str) -> PreTrainedTokenizerBase:
    tokenizer = copy.copy(_tokenizer())
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    "template",
    [
        "sets: the file was another one",
        "{% for m in messages %}{{ m.content if m.role == 'assistant' else '?' }};{% endfor %}",
        "{% for m in messages %}{{ m.content if not loop.first }};{% endfor %}",
    ],
    ids=["constant", "no user", "no first turn"],
)
def test_a_template_that_leaves_the_user_out_is_refused(template: str) -> None:
    for use in (
        lambda: encode(TOLD, _with_template(template)),
        lambda: render_prompt(ASKED, _with_template(template)),
    ):
        with pytest.raises(InputError, match="leaves out what the user says") as caught:
            use()
        assert (caught.value.where or "").startswith("message 1 of ")
        assert "--chat-template" in (caught.value.fix or "")


def test_a_template_may_write_what_the_user_says_in_its_own_way() -> None:
    shouting = _with_template("{% for m in messages %}{{ m.content | upper }};{% endfor %}")
    assert render_prompt(ASKED, shouting) == "HOW MANY ?;"
    assert render_prompt([{"role": "user", "content": " "}], shouting) == " ;"
