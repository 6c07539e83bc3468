"""A federation that passes folders: sites with files of their own, a study that takes few exchanges, and a carrier."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import yaml
from deployment_support import NAMES, STUDY, write_site

from ctfed import trust
from ctfed.federation.roster import read_roster
from ctfed.rounds.answering import answer_packages
from ctfed.site import load_site
from ctfed.study import load_study
from server.files_transport import Settings, Waiting, advance
from server.provision import make_trial_keys, provision

FEATURES = ["age", "sex", "ecog"]
TEXTURE = ("t0", "t1", "t2")


def write_study(path: Path, features: Sequence[str] = FEATURES) -> Path:
    """The demo study with a given penalty and without medians."""
    content = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
    del content["tuning"]
    content["model"] |= {"features": list(features), "standardise": False}
    content["variables"]["age"]["impute"] = "none"
    content["penalty"] = {"penalizer": 0.02, "l1_ratio": 0.5}
    content["evaluation"] |= {"bootstrap": 20}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def write_many_study(path: Path) -> Path:
    """A study of two models and their mean: clinical variables, and harmonized features of which two say the same."""
    content = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
    for key in ("model", "tuning"):
        del content[key]
    content["name"] = "two-models"
    content["variables"] = {name: content["variables"][name] for name in ("age", "sex", "ecog")}
    content["variables"]["age"]["impute"] = "none"
    content |= {
        "groups": {
            "clinical": {"variables": ["age", "sex", "ecog"]},
            "texture": {"columns": list(TEXTURE), "magnitude": 4},
        },
        "models": {
            "clinical": {"table": "3", "groups": ["clinical"]},
            "texture-combat": {"table": "6", "groups": ["texture"], "combat": ["texture"]},
        },
        "ensembles": {"both": {"table": "8", "models": ["clinical", "texture-combat"]}},
        "search": {"trials": 2, "batch": 2, "startup": 1, "folds": 2, "penalizer": [0.01, 0.3]},
        "evaluation": content["evaluation"] | {"bootstrap": 20, "horizons": [6, 12]},
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def add_texture(table: Path, rng: np.random.Generator) -> None:
    """Put columns of measurements into a clinical table, on another scale at every site."""
    header, *rows = table.read_text(encoding="utf-8").splitlines()
    values = rng.normal(rng.normal(), 1 + rng.random(), (len(rows), len(TEXTURE)))
    values[:, 1] = values[:, 0] + rng.normal(scale=0.05, size=len(rows))
    lines = [f"{row},{','.join(f'{value:.4f}' for value in more)}" for row, more in zip(rows, values, strict=True)]
    table.write_text("\n".join([f"{header},{','.join(TEXTURE)}", *lines]) + "\n", encoding="utf-8")


class Centres:
    """Three sites that have approved the study, the server's folder, and what is carried between them."""

    def __init__(self, folder: Path, write: Callable[[Path], Path] = write_study) -> None:
        self.folder = folder
        self.study = write(folder / "study.yaml")
        provision(folder / "federation", make_trial_keys(folder / "federation", NAMES), "127.0.0.1:1")
        for index, name in enumerate(NAMES):
            write_site(self.home(name), name, np.random.default_rng(index), patients=80)
            if write is write_many_study:
                add_texture(self.home(name) / "clinical.csv", np.random.default_rng([index, 1]))
            secret = self.home(name) / "site.secret"  # the same splits and folds in every run of the tests
            secret.write_text(f"{4000 + index:064x}\n", encoding="utf-8")
            secret.chmod(0o600)
            self.approve(name)
        self.roster = self.home(NAMES[0]) / "roster.json"
        self.exchange_folder = folder / "server" / "packages"
        self.settings = Settings(self.study, self.roster, self.exchange_folder, folder / "server" / "out")
        self.lines: list[str] = []

    def home(self, name: str) -> Path:
        """A site's own folder."""
        return self.folder / "federation" / "sites" / name

    def approve(self, name: str) -> None:
        site, study = load_site(self.home(name) / "site.yaml"), load_study(self.study)
        trust.approve(site, study, read_roster(self.home(name) / "roster.json"))

    def ask(self, *, write: bool = True) -> Waiting | None:
        """`ctfed round ask`, or `collect`."""
        return advance(self.settings, write=write, tell=self.lines.append)

    def carry_in(self, name: str, waiting: Waiting) -> Path:
        """Take the newest question to a site; returns what it takes for its folder of packages."""
        inbox = self.home(name) / "inbox"
        for package in waiting.written:
            if package.name.endswith(f"-{name}"):
                shutil.copytree(package, inbox / package.name, dirs_exist_ok=True)
        return inbox

    def answer(self, name: str, waiting: Waiting) -> list[Path]:
        """`ctfed round answer` at a site, into its egress folder."""
        inbox = self.carry_in(name, waiting)
        home = self.home(name)
        return answer_packages(home / "site.yaml", self.study, inbox, home / "egress", tell=self.lines.append)

    def carry_out(self, packages: Sequence[Path]) -> list[Path]:
        """Take answers to the server's folder."""
        return [
            Path(shutil.copytree(package, self.exchange_folder / "answers" / package.name, dirs_exist_ok=True))
            for package in packages
        ]

    def exchange(self, waiting: Waiting, names: Sequence[str] = NAMES) -> None:
        """One exchange with some sites."""
        for name in names:
            self.carry_out(self.answer(name, waiting))

    def until(self, exchange: int) -> Waiting:
        """Go on until this exchange is asked."""
        while True:
            waiting = self.ask()
            assert waiting is not None
            if waiting.exchange >= exchange:
                return waiting
            self.exchange(waiting)

    def to_the_end(self) -> int:
        """Go on to the report; returns the number of the last exchange."""
        last = 0
        while (waiting := self.ask()) is not None:
            assert waiting.exchange == last + 1 or last == 0
            last = waiting.exchange
            self.exchange(waiting)
        return last
