"""Gives the processes of one site a fault: another clock, another version of ctfed, another format of messages.

Python imports this file at its start wherever the folder is on PYTHONPATH.
"""

import datetime
import importlib
import os

if "FAULTY_CLOCK" in os.environ:
    date = importlib.import_module("flwr.supercore.date")
    now, ahead = date.now, datetime.timedelta(seconds=float(os.environ["FAULTY_CLOCK"]))
    date.now = lambda: now() + ahead  # what a SuperNode signs

if "FAULTY_VERSION" in os.environ:
    importlib.import_module("ctfed").__version__ = os.environ["FAULTY_VERSION"]

if "FAULTY_FORMAT" in os.environ:
    importlib.import_module("ctfed.federation.wire").FORMAT = int(os.environ["FAULTY_FORMAT"])
