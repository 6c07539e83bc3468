"""Reports: page components, figures, and the pages made of them.

``page`` renders ``components``; the ``figures_*`` modules draw; ``pooled`` writes the report of a whole study. Nothing
here knows how the numbers came about: a report is made from the results alone.
"""

from __future__ import annotations

from ctfed.report.pooled import write_pooled_report

__all__ = ["write_pooled_report"]
