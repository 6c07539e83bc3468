"""A page from its components: one HTML file that needs nothing else, neither a network nor a script."""

from __future__ import annotations

import base64
import hashlib
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ctfed.report.components import Page
from ctfed.report.palette import dark_mode_rules


@cache
def _environment() -> Environment:
    # Autoescape is on for every template whatever its name: feature and site names come from outside.
    environment = Environment(
        loader=PackageLoader("ctfed.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["stylesheet"] = Markup(_source(environment, "style.css") + dark_mode_rules())
    # The page's policy lets this one script run, named by its digest, and no other.
    script = _source(environment, "sort.js")
    environment.globals["sorting"] = Markup(script)
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    environment.globals["sorting_digest"] = f"sha256-{digest}"
    return environment


def _source(environment: Environment, name: str) -> str:
    """A file beside the templates as it is, without Jinja looking into it."""
    if environment.loader is None:
        raise RuntimeError("the template environment has no loader")
    source, _, _ = environment.loader.get_source(environment, name)
    return source


def render_page(page: Page, scripts: bool = True) -> str:
    """The page as HTML text; the same page gives the same text.

    Args:
        page: its components.
        scripts: whether tables may be sorted and filtered; without, the page holds no script at all, which an
            output checker need not read then.
    """
    return _environment().get_template("page.html.j2").render(page=page, scripts=scripts and page.live)
