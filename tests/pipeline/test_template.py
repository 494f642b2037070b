"""Templates: strict, escaped where HTML is written, and bombs end quickly."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pipeline import HtmlTemplate, Message, PermanentError, Template
from pipeline.template import MAX_TEXT

MESSAGE = Message(
    source="t",
    time=datetime(2026, 11, 21, 8, 30, 0, 5, tzinfo=UTC),
    title="disk <full>",
    text="a\r\nb",
    severity="critical",
    labels={"team": "db", "items": "a label", "n": "5"},
    data={"n": 90, "list": [1, 2, 3], "none": None, "o": {"a": "b"}, "words": ["x", "y"]},
)


def render(text, kind=Template, message=MESSAGE):
    return kind(text).render(message)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("plain\n", "plain\n"),
        ("{{ severity | upper }}: {{ title }}", "CRITICAL: disk <full>"),
        ("{{ text }}", "a\r\nb"),
        ("{{ labels.team }} {{ labels['team'] }} {{ labels.items }}", "db db a label"),
        ('{{ labels.region | default("none") }}', "none"),
        ("{{ data.none }}|{{ none }}", "|"),
        ("{{ time }}", "2026-11-21 08:30:00+00:00"),
        ('{{ time | localtime("Europe/Berlin") }}', "2026-11-21 09:30:00+01:00"),
        ("{{ time.strftime('%H:%M') }} {{ time.year }}", "08:30 2026"),
        ("{{ data.n | duration }} {{ time - time }} {{ (time - time) | duration }}", "1m30s 0s 0s"),
        ("{{ data.o }} {{ data.list }}", '{"a":"b"} [1,2,3]'),
        ("{{ title | tojson }} {{ data.o | tojson(2) }}", '"disk <full>" {\n  "a": "b"\n}'),
        ("{% for x in data.list if x > 1 %}{{ x }}{% if not loop.last %},{% endif %}{% endfor %}", "2,3"),
        ("{% for x in [] %}{% else %}none{% endfor %}", "none"),
        ("{% for k, v in data.o.items() %}{{ k }}={{ v }}{% endfor %}", "a=b"),
        ("{% set x = title ~ '!' ~ 3 %}{{ x }}", "disk <full>!3"),
        ("{% set title = 'mine' %}{{ title }}{% set x = '' %}{% if text %}{% set x = 'a' %}{% endif %}{{ x }}", "minea"),
        ("{% set x = 'a' %}{% for i in [1] %}{% set x = 'b' %}{{ x }}{{ labels.n }}{% endfor %}{{ x }}", "b5a"),
        ("{{ data.list | join('-') }} {{ range(3) | join }} {{ data.list | map('string') | list | length }}", "1-2-3 012 3"),
        (
            "{{ data.list | sum }} {{ data.list | sort(reverse=true) | first }} {{ 7 % 4 }} {{ 2 ** 10 }} {{ 2 * 3 }}",
            "6 3 3 1024 6",
        ),
        (
            "{{ 'x' * 3 }} {{ 3 * 'x' }} {{ 'a' + 'b' }} {{ '%s-%03d' % ('a', 7) }} {{ '%s' | format(title) }}",
            "xxx xxx ab a-007 disk <full>",
        ),
        ("{{ 'abc' | replace('b', 'xx') }} {{ 'a\nb' | indent(2) }} {{ title | truncate(4, true, '', 0) }}", "axxc a\n  b disk"),
        ("{{ labels.n | int + 1 }} {{ title.split(' ')[0] }} {{ title.upper() }} {{ title[:4] }}", "6 disk DISK <FULL> disk"),
        ("{{ 'yes' if status == 'firing' else 'no' }} {{ title is string }} {{ 'db' in labels.values() }}", "yes True True"),
        ("{{ '%(a)s' | format(a=title) }} {{ data.list | map('string') | join('') }}", "disk <full> 123"),
    ],
)
def test_what_it_gives(text, rendered):
    assert render(text) == rendered


def test_html_escapes_values_and_leaves_its_own_text():
    assert render("<b>{{ title }}</b>", HtmlTemplate) == "<b>disk &lt;full&gt;</b>"
    assert render('{{ "<i>" ~ title }} {{ title | e }} {{ data.o }}', HtmlTemplate).count("<") == 0
    assert render("{{ title | safe }}", HtmlTemplate) == "disk <full>"
    assert render("{{ title | tojson }}", HtmlTemplate) == "&#34;disk &lt;full&gt;&#34;"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{{ titel }}", "line 1, column 4: no field of a message is called 'titel'; did you mean 'title'?"),
        ("a\n {{ zzz.x }}", "line 2, column 5: no field of a message is called 'zzz'; there are id, source, type, "),
        ("{{ title | uper }}", "line 1, column 12: no filter is called 'uper'; did you mean 'upper'?"),
        ("{{ title | _each }}", "line 1, column 12: no filter is called '_each'"),
        ("{{ title is strnig }}", "line 1, column 13: no test is called 'strnig'; did you mean 'string'?"),
        ("{{ title", "line 1: unexpected end of template"),
        ("\n{% if %}", "line 2: Expected an expression"),
        ("{{ namespace() }}", "line 1, column 4: no field of a message is called 'namespace'"),
        ("{{ self }}", "line 1, column 4: 'self' is not available here"),
        ("{% macro f() %}{% endmacro %}", "line 1: macros, blocks, imports and recursive loops are not available here"),
        ("{% set x %}a{% endset %}", "line 1: macros, blocks"),
        ('{% include "x" %}', "line 1: macros, blocks"),
        ("{% for a in [] recursive %}{% endfor %}", "line 1: macros, blocks"),
        ("{{ " + "(" * 300 + "1" + ")" * 300 + " }}", "line 1: it nests too deeply"),
        ("{{ " + "9" * 5000 + " }}", "line 1: it nests too deeply, or holds a number that is too long"),
        ("x" * (MAX_TEXT + 1), f"a template has at most {MAX_TEXT} characters"),
    ],
)
def test_what_is_wrong_is_said_with_the_place(text, error):
    with pytest.raises(ValueError) as caught:
        Template(text)
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{{ labels.region }}", "the template, line 1: the message has no labels.region; write | default(...)"),
        ('\n{{ labels["a b"] | upper }}', 'the template, line 2: the message has no labels["a b"]; write'),
        ("{{ data.o.zz }}", "the template, line 1: the message has no data.o.zz; write"),
        ("{{ data.list[7] }}", "the template, line 1: the message has no 7; write"),
        ("{{ labels.region | tojson }}", "the template, line 1: the message has no labels.region"),
        ("{% for x in labels.region %}{% endfor %}", "the template, line 1: the message has no labels.region"),
        ("{{ title + 3 }}", "the template, line 1: can only concatenate str"),
        ("{{ 5 % 0 }}", "the template, line 1: "),
        ("{{ [1, 'a'] | sort }}", "the template, line 1: '<' not supported"),
        ('{{ time | localtime("Nowhere") }}', "the template, line 1: there is no time zone 'Nowhere'"),
        ('{{ time | localtime("../x") }}', "the template, line 1: there is no time zone '../x'"),
        ("{{ title.__class__ }}", "the template, line 1: access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ title.format(1) }}", "the template, line 1: access to attribute 'format'"),
        ("{{ data.list.append(1) }}", "the template, line 1: access to attribute 'append'"),
        ("{{ ''.__class__.__mro__ }}", "the template, line 1: "),
        ("{{ data.list | map('nosuch') | list }}", "the template, line 1: "),
        ("{{ data.list | map('_each') | list }}", "the template, line 1: "),
    ],
)
def test_what_fails_names_the_line(text, error):
    with pytest.raises(PermanentError) as caught:
        render(text)
    assert str(caught.value).startswith(error)


NESTED = "{% set a = [1, 2] %}" + "{% set a = [a, a, a] %}" * 40


@pytest.mark.parametrize(
    "text",
    [
        "{{ 10**10000000 }}",
        "{{ 9**9**9**9 }}",
        "{{ 2**64 * 2**64 * 2**64 }}",
        '{{ "a" * 1000000000 }}',
        '{{ 1000000000 * "a" }}',
        "{{ [1] * 1000000000 }}",
        '{{ "x" | center(10**9) }}',
        '{{ "%1000000000d" % 1 }}',
        '{{ "%*d" % (1000000000, 1) }}',
        '{{ "%1000000000d" | format(1) }}',
        '{{ "%(a)s" * 60000 % {"a": "x" * 60000} }}',
        "{{ text | indent(1000000000) }}",
        '{{ ("\\n" * 60000) | indent(60000) }}',
        '{{ ("a" * 60000) | replace("a", "b" * 60000) }}',
        '{{ (["a" * 60000] * 60000) | join }}',
        '{{ (["a"] * 60000) | join("b" * 60000) }}',
        '{{ range(100000) | map("string") | map("center", 60000) | list }}',
        "{{ range(1000000) | list }}",
        "{{ 1.5 | round(100000000, 'ceil') }}",
        "{{ [[1]] | sum(start=[]) }}",
        "{{ title.rsplit('x', 10**12) }}",
        "{{ time.strftime('%999999999d') }}",
        "{{ data | tojson(10**9) }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        '{% for i in range(99999) %}{% for j in range(99999) %}{{ "" }}{% endfor %}{% endfor %}',
        '{% for i in range(99999) %}{{ "x" * 1000 }}{% endfor %}',
        '{% set a = "x" * 1000 %}' + "{% set a = a ~ a %}" * 40 + "{{ a }}",
        '{% set a = "x" * 1000 %}' + "{% set a = a + a %}" * 40 + "{{ a }}",
        NESTED + "{{ a }}",
        NESTED + "{{ a | string }}",
        NESTED + "{{ a | tojson }}",
        NESTED + "{{ '' ~ a }}",
        NESTED + "{{ '%s' % a }}",
        NESTED + "{{ a | join }}",
    ],
)
@pytest.mark.parametrize("kind", [Template, HtmlTemplate])
def test_bombs_end(text, kind):
    with pytest.raises(PermanentError, match=r"too much|too large|more than|numbers there end|adds numbers|range|Range"):
        render(text, kind)


def test_the_time_is_bounded_too(monkeypatch):
    monkeypatch.setattr("pipeline.template.bounds.MAX_SECONDS", 0.0)
    with pytest.raises(PermanentError, match="too much work"):
        render("{% for x in range(1000) %}{% endfor %}")


def test_the_time_is_bounded_where_a_loop_writes_nothing(monkeypatch):
    monkeypatch.setattr("pipeline.template.bounds.MAX_SECONDS", 0.05)
    with pytest.raises(PermanentError, match="too much work"):
        render("{% for x in range(99999) %}" + '{{ "" }}' * 5000 + "{% endfor %}")


def test_no_rendering_pays_for_another_one(monkeypatch):
    monkeypatch.setattr("pipeline.template.bounds.MAX_WORK", 1000)
    template = Template("{% set x = title %}{% for a in range(900) %}{% set x = a %}{% endfor %}{{ x }}")
    assert {template.render(MESSAGE) for _ in range(5)} == {MESSAGE.title}


def test_the_output_is_bounded():
    assert len(render("{{ text }}", message=MESSAGE.replace(text="x" * Template.max_length))) == Template.max_length
    with pytest.raises(PermanentError, match="more than 65536 characters"):
        render("{{ text }}.", message=MESSAGE.replace(text="x" * Template.max_length))


def test_names_and_equality():
    template = Template("{{ title }}{% set type = 1 %}{{ type }}{% for x in data %}{{ x }}{% endfor %}")
    assert template.names == ("data", "title")
    assert template == Template(template.text)
    assert template != HtmlTemplate(template.text)
    assert len({template, Template(template.text), Template("")}) == 2
    assert repr(HtmlTemplate("x")) == "HtmlTemplate('x')"


def test_as_the_type_of_an_option():
    for kind in (Template, HtmlTemplate):
        adapter = TypeAdapter(kind)
        template = adapter.validate_python("{{ title }}")
        assert type(template) is kind
        assert adapter.validate_python(template) is template
        assert adapter.dump_python(template) == "{{ title }}"
        assert adapter.json_schema()["type"] == "string"
        with pytest.raises(ValidationError, match="did you mean 'title'"):
            adapter.validate_python("{{ titel }}")


PIECES = [
    "{{",
    "}}",
    "{%",
    "%}",
    " title ",
    "|upper",
    "labels.team",
    "if ",
    "endif",
    "for x in data",
    "endfor",
    "'",
    "(",
    ")",
    "~",
    "*",
    "3",
    "{#",
    "#}",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_template_or_a_value_error(text):
    try:
        template = Template(text)
    except ValueError:
        return
    try:
        assert isinstance(template.render(MESSAGE), str)
    except PermanentError as error:
        assert str(error).startswith("the template, line")  # noqa: PT017 - either outcome is right


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_no_value_gets_through_unescaped(text):
    rendered = render(
        "{{ title }}{{ title ~ '' }}{{ [title] | join(', ') }}{{ [title] }}", HtmlTemplate, MESSAGE.replace(title=text)
    )
    assert not set("<>\"'") & set(rendered)
