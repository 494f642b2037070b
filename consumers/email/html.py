"""The HTML of a mail: cleaned, and with its CSS in its elements."""

from __future__ import annotations

import re
from html import escape
from itertools import accumulate
from typing import Final

import css_inline
import nh3

from consumers.email.mail import END
from consumers.email.text import LONGEST, clean, line, origin
from pipeline import Message, colour, headline, shorten, shown_labels

_CSS: Final = """
.card { border-left: 4px solid #5b6b7f; padding: 4px 16px; font: 14px/1.5 -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
h1 { font-size: 18px; margin: 0 0 8px; }
.labels { border-collapse: collapse; margin: 8px 0; }
.labels th { color: #5b6b7f; font-weight: normal; padding: 1px 12px 1px 0; text-align: left; vertical-align: top; }
.labels td { padding: 1px 0; }
.origin { color: #5b6b7f; font-size: 12px; margin: 8px 0 0; }
"""
_STYLES: Final = {
    *("background-color", "border", "border-bottom", "border-collapse", "border-color", "border-left", "border-left-color"),
    *("border-radius", "border-right", "border-spacing", "border-style", "border-top", "border-width", "color", "display"),
    *("font", "font-family", "font-size", "font-style", "font-variant", "font-weight", "height", "letter-spacing"),
    *("line-height", "list-style", "list-style-type", "margin", "margin-bottom", "margin-left", "margin-right", "margin-top"),
    *("max-height", "max-width", "min-height", "min-width", "padding", "padding-bottom", "padding-left", "padding-right"),
    *("padding-top", "table-layout", "text-align", "text-decoration", "text-indent", "text-transform", "vertical-align"),
    *("white-space", "width", "word-break", "word-spacing", "word-wrap", "overflow-wrap"),
}
_ATTRIBUTES: Final = {tag: {*names} for tag, names in nh3.ALLOWED_ATTRIBUTES.items()}
for _tag in ("table", "tr", "td", "th"):
    _ATTRIBUTES[_tag] |= {"bgcolor", "border", "cellpadding", "cellspacing", "height", "valign", "width"}
_ATTRIBUTES["*"] = {"class", "dir", "lang", "style", "title"}
_SCHEMES: Final = {"http", "https", "mailto", "tel"}
_TAG: Final = re.compile(r"<(/?)(?!(?:area|br|col|hr|img|wbr)\b)[a-z]")
_DEEPEST: Final = 200
"""Elements within one another: `css_inline` ends the process where there are thousands."""
_INLINER: Final = css_inline.CSSInliner(load_remote_stylesheets=False)


def as_html(message: Message) -> str:
    """Give a message as HTML: a card with title and link, text, labels and origin."""
    title = escape(line(headline(message)))
    title = f'<a href="{escape(line(message.url))}">{title}</a>' if message.url else title
    text = escape(clean(shorten(message.text, LONGEST)).strip()).replace("\n", "<br>\n")
    labels = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(shorten(value, 1000))}</td></tr>"
        for name, value in shown_labels(message).items()
    )
    parts = [f"<h1>{title}</h1>", text and f"<p>{text}</p>", labels and f'<table class="labels">{labels}</table>']
    parts += [f'<p class="origin">{escape(origin(message))}</p>']
    body = "\n".join(filter(None, parts))
    return f'<table><tr><td class="card" style="border-left-color: {colour(message)}">{clean(body)}</td></tr></table>'


def finished(html: str, css: str) -> str | None:
    """Give the HTML, cleaned before CSS is written into it; None where it is nested so deeply that nobody could show it."""
    cleaned = nh3.clean(html, attributes=_ATTRIBUTES, filter_style_properties=_STYLES, url_schemes=_SCHEMES)
    if _depth(cleaned) > _DEEPEST:
        return None
    body = _INLINER.inline_fragment(cleaned, css=_CSS + css)
    return f'<!DOCTYPE html>\n<html><head><meta charset="utf-8"></head><body>\n{body}{END}'


def _depth(html: str) -> int:
    """Give how deeply elements are nested, in HTML of which each is closed."""
    return max(accumulate(-1 if found[1] else 1 for found in _TAG.finditer(html)), default=0)
