"""A site's answers, as the server takes them in: coverage-guided. Run by tests/fuzz/run_fuzz.py."""

import sys

from guided import fuzz

if __name__ == "__main__":
    fuzz("answer", sys.argv)
