"""Policy: a site's own limits on what may be asked of it. A server can ask for less, never for more."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ctfed.config import Section


class Policy(Section):
    """A site's limits; the defaults are those of ACRO and DataSHIELD where these have one."""

    ctfed_policy: Literal[1] = Field(default=1, description="1, the version of this format")
    min_sites: int = Field(default=3, ge=3, description="a whole number >= 3, the fewest sites of a sum")
    min_patients: int = Field(default=10, ge=1, description="a whole number >= 1, the fewest patients of this site")
    min_events: int = Field(default=5, ge=0, description="a whole number >= 0, the fewest events of this site")
