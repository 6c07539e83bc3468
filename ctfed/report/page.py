"""A page from its components: one HTML file that needs nothing else, neither a network nor a script."""

from __future__ import annotations

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
    environment.globals["stylesheet"] = Markup(_stylesheet(environment))
    return environment


def _stylesheet(environment: Environment) -> str:
    """The style sheet as it is, without Jinja looking into it."""
    if environment.loader is None:
        raise RuntimeError("the template environment has no loader")
    source, _, _ = environment.loader.get_source(environment, "style.css")
    return source + dark_mode_rules()


def render_page(page: Page) -> str:
    """The page as HTML text; the same page gives the same text."""
    return _environment().get_template("page.html.j2").render(page=page)
