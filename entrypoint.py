"""The images' front door: settles user, home and caches, then hands over to ``ctfed``.

What to run comes from appended arguments, or else from environment variables:

    docker run ctfed-site doctor --site /site/site.yaml
    docker run -e CTFED_COMMAND=doctor -e CTFED_SITE=/site/site.yaml ctfed-site

Any uid will do. Started as root it becomes HOST_UID:HOST_GID (1000:1000 where they are not set) and can gain no rights
any more; HOST_UID=0 stays root, for engines whose root is the caller. As process 1 it passes signals on and buries
orphans. It needs Python's standard library alone, and writes nothing outside CTFED_TMP (/tmp).
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

USAGE = 2
DEFAULT_ID = "1000"
_PR_SET_NO_NEW_PRIVS = 38
_LARGEST_ID = 2**32 - 2

# Command -> its arguments as (variable, option; '' for a positional one, default; None where the variable must be set).
# A variable that is neither set nor has a default is left out when its option ends with '?'.
COMMANDS: Mapping[str, tuple[tuple[str, str, str | None], ...]] = {
    "approve": (("CTFED_STUDY", "", None), ("CTFED_SITE", "--site", None), ("CTFED_ROSTER", "--roster?", None)),
    "doctor": (("CTFED_SITE", "--site", None), ("CTFED_STUDY", "--study?", None), ("CTFED_FOLDER", "--folder?", None)),
    "join": (
        ("CTFED_SITE", "", None),
        ("CTFED_STUDY", "--study", None),
        ("CTFED_FOLDER", "--folder?", None),
        ("CTFED_STATE", "--state", "{tmp}/node"),
    ),
    "keygen": (("CTFED_FOLDER", "", None), ("CTFED_NAME", "--site", None)),
    "prepare": (("CTFED_SITE", "--site", None), ("CTFED_WORKERS", "--workers?", None)),
    "serve": (
        ("CTFED_STUDY", "", None),
        ("CTFED_FOLDER", "--folder", None),
        ("CTFED_OUT", "--out", None),
        ("CTFED_HOST", "--host", "0.0.0.0"),
        ("CTFED_PORT", "--port", "8000"),
        ("CTFED_STATE", "--state?", None),
    ),
    "simulate": (("CTFED_STUDY", "", None), ("CTFED_SITE", "--site", None), ("CTFED_OUT", "--out", None)),
    "site": (("CTFED_SITE", "", None), ("CTFED_STUDY", "--study", None)),
}

# Libraries that write beside their code or into the home get a folder below CTFED_TMP.
CACHES = {
    "MPLCONFIGDIR": "matplotlib",
    "NUMBA_CACHE_DIR": "numba",
    "XDG_CACHE_HOME": "cache",
    "TORCH_HOME": "torch",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "FLWR_HOME": "flwr",
    "TOTALSEG_HOME_DIR": "totalsegmentator",
}


class Refused(Exception):
    """The container cannot go on; the text is the sentence to print."""


def main(arguments: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Run one command of ctfed; 2 with a sentence when user, folders or variables do not allow it."""
    os.umask(0o077)  # what a site writes is for its own eyes
    try:
        become_user(environ)
        settle(environ)
        command = list(arguments) or command_of(environ)
    except Refused as refused:
        print(f"ctfed: {refused}", file=sys.stderr)
        return USAGE
    if os.getpid() == 1:
        return as_first_process(command)
    return run(command)


def run(command: Sequence[str]) -> int:
    """Hand over to ctfed.cli in this process; SIGTERM is what Ctrl-C is."""
    from ctfed.cli import main as ctfed

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return ctfed(command)


def command_of(environ: Mapping[str, str]) -> list[str]:
    """The command line that CTFED_COMMAND and its variables stand for; --help without it.

    Raises:
        Refused: when the command is not known or a variable that it needs is missing.
    """
    name = environ.get("CTFED_COMMAND", "")
    if not name:
        return ["--help"]
    extra = shlex.split(environ.get("CTFED_ARGUMENTS", ""))
    if name not in COMMANDS:
        raise Refused(
            f"CTFED_COMMAND: found {name!r}, expected {', '.join(COMMANDS)}; give other commands as arguments"
        )
    command = [name]
    for variable, option, default in COMMANDS[name]:
        value = environ.get(variable) or (default or "").format(tmp=_temporary(environ))
        if not value:
            if option.endswith("?"):
                continue
            raise Refused(f"{variable}: found nothing, expected it beside CTFED_COMMAND={name}")
        # A simulation takes several site files.
        values = value.split(os.pathsep) if (name, variable) == ("simulate", "CTFED_SITE") else [value]
        for one in values:
            command += [option.rstrip("?"), one] if option else [one]
    return command + extra


def become_user(environ: Mapping[str, str]) -> None:
    """Leave root for HOST_UID and HOST_GID, with the groups of HOST_GROUPS (numbers with commas between them).

    Raises:
        Refused: when a number is none, or the engine does not let root change its user.
    """
    if os.getuid() != 0:
        return
    uid = _number(environ, "HOST_UID", DEFAULT_ID)
    gid = _number(environ, "HOST_GID", str(uid))
    if uid == 0:
        return
    groups = [_as_id("HOST_GROUPS", text) for text in environ.get("HOST_GROUPS", "").split(",") if text.strip()]
    _own(environ.get("CTFED_OUT", ""), uid, gid)
    try:
        os.setgroups([gid, *groups])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except PermissionError as error:
        raise Refused(
            f"started as root, which this engine does not let change to {uid}:{gid}; start it with --user {uid}:{gid}, "
            "or with HOST_UID=0 where root in the container is you"
        ) from error
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def settle(environ: MutableMapping[str, str]) -> None:
    """Give a user without name, home or cache folders all of these, below CTFED_TMP.

    Raises:
        Refused: when that folder cannot be written.
    """
    temporary = _temporary(environ)
    try:
        temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
        home = environ.get("HOME", "")
        if not home or home == "/" or not os.access(home, os.W_OK):
            environ["HOME"] = str(temporary / "home")
            Path(environ["HOME"]).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Refused(
            f"{error.filename} cannot be written ({error.strerror}); mount a tmpfs at /tmp, or set CTFED_TMP"
        ) from error
    for variable, folder in CACHES.items():
        environ.setdefault(variable, str(temporary / folder))
    for variable in ("USER", "LOGNAME"):  # libraries ask for the name of a uid that no passwd file knows
        environ.setdefault(variable, f"uid{os.getuid()}")


def as_first_process(command: Sequence[str]) -> int:
    """Run the command in a child; pass signals on to it and reap every orphan until it ends; its exit code."""
    child = os.fork()
    if child == 0:
        return run(command)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda received, _: os.kill(child, received))
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _temporary(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("CTFED_TMP") or f"/tmp/ctfed-{os.getuid()}")


def _own(folder: str, uid: int, gid: int) -> None:
    """Hand the output folder itself, which an engine may have made as root's, to the user; never what is in it."""
    if folder and os.path.isdir(folder) and not os.path.islink(folder) and os.stat(folder).st_uid == 0:
        try:
            os.chown(folder, uid, gid)
        except OSError as error:
            raise Refused(f"{folder} belongs to root and cannot be given to {uid}:{gid} ({error.strerror})") from error


def _number(environ: Mapping[str, str], variable: str, default: str) -> int:
    return _as_id(variable, environ.get(variable) or default)


def _as_id(variable: str, text: str) -> int:
    if not text.strip().isdecimal() or int(text) > _LARGEST_ID:
        raise Refused(f"{variable}: found {text!r}, expected a number of a user or group")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
