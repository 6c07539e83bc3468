"""Rounds, invitations and sessions, as a site takes them in: coverage-guided. Run by tests/fuzz/run_fuzz.py."""

import sys

from guided import fuzz

if __name__ == "__main__":
    fuzz("question", sys.argv)
