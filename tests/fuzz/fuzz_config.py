"""Study, site and policy files: coverage-guided. Run by tests/fuzz/run_fuzz.py."""

import sys

from guided import fuzz

if __name__ == "__main__":
    fuzz("config", sys.argv)
