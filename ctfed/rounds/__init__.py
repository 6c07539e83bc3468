"""Rounds as files: what `ctfed round ask` and `ctfed round answer` pass to each other in a folder."""
