"""The command line: help is quick and whole, every fault is a sentence on standard error and exit code 2."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ctfed.node
import server.deploy
from ctfed.cli import build_parser, main
from ctfed.federation.roster import read_roster
from server.commands import DEMO, EXAMPLES, TRIAL

STUDY = EXAMPLES / "studies" / DEMO
SITE = EXAMPLES / "sites" / DEMO


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for command in ("site", "keygen", "approve", "join", "demo", "simulate", "study", "provision", "serve"):
        assert re.search(rf"^    {command}\b", shown, re.MULTILINE), command


def test_help_imports_nothing_heavy() -> None:
    """Numerical libraries, Flower and drawing are imported by the commands that need them."""
    program = (
        "import sys\nfrom ctfed.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', sorted({'torch', 'flwr', 'matplotlib', 'scipy', 'pandas', 'lifelines'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.rstrip().endswith("HEAVY []")


def test_a_study_is_checked_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "study", "check", str(STUDY))
    assert code == 0
    assert "ncctg_lung" in out
    assert "sha256" in out


def test_a_site_is_checked_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "site", str(SITE), "--study", str(STUDY))
    assert code == 0
    assert "institution-01: " in out
    assert "other-institutions" in out


def edited(path: Path, old: str, new: str, folder: Path) -> Path:
    text = path.read_text()
    assert old in text
    copy = folder / path.name
    copy.write_text(text.replace(old, new))
    return copy


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        (STUDY, "ties: efron", "ties: effron", ["ncctg_lung.yaml", "model.ties", "'effron'", "'efron' or 'breslow'"]),
        (STUDY, "  ties: efron", "  tie: efron", ["model.tie", "did you mean", "ties"]),
        (STUDY, "folds: 5", "folds: five", ["tuning.folds", "'five'", "whole number"]),
        (SITE, "by: inst", "by: hospital", ["hospital", "inst"]),
        (SITE, "time: time", "time: tyme", ["tyme", "time"]),
        (SITE, "status}", "sex}", ["sex"]),
    ],
)
def test_a_wrong_file_is_one_clear_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, file: Path, old: str, new: str, words: list[str]
) -> None:
    wrong = edited(file, old, new, tmp_path)
    study, site = (wrong, SITE) if file == STUDY else (STUDY, wrong)
    code, _, err = run(capsys, "simulate", str(study), "--site", str(site), "--out", str(tmp_path / "out"))
    assert code == 2
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_a_missing_file_is_a_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "study", "check", str(tmp_path / "none.yaml"))
    assert code == 2
    assert "none.yaml" in err
    assert "Traceback" not in err


def test_a_journal_of_another_study_is_a_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    quick = edited(STUDY, "count: 30", "count: 2", tmp_path)
    assert run(capsys, "simulate", str(quick), "--site", str(SITE), "--out", str(tmp_path / "out"))[0] == 0
    other = edited(STUDY, "count: 30", "count: 3", tmp_path)
    code, _, err = run(capsys, "simulate", str(other), "--site", str(SITE), "--out", str(tmp_path / "out"))
    assert code == 2
    assert "journal" in err
    assert "choose another output folder" in err


# -- a federation of real machines, as the README has it

README = EXAMPLES.parent / "README.md"
PEERS = ("south", "west")


def readme_commands() -> list[list[str]]:
    """The commands of the README's section, in order, each without the word ctfed."""
    section = README.read_text().split("## A federation of real machines")[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("ctfed ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def example_table() -> str:
    """A table of the columns that site_config/sites/example_site.yaml names."""
    rng = np.random.default_rng(0)
    names = "patient_id,follow_up_days,vital_status,age_at_diagnosis,sex,ecog,karnofsky,karnofsky_patient"
    rows = [f"{names},calories_at_meals,weight_loss"]
    for number in range(40):
        status, sex = ("dead", "alive")[number % 2], "MF"[rng.integers(0, 2)]
        rows.append(
            f"p{number},{rng.integers(30, 900)},{status},{rng.integers(40, 85)},{sex},{rng.integers(0, 3)},"
            f"{10 * rng.integers(5, 11)},{10 * rng.integers(5, 11)},{rng.integers(300, 1500)},{rng.integers(-10, 30)}"
        )
    return "\n".join(rows) + "\n"


@pytest.fixture
def centre(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of 'north', of the server and of who provisions, with the shipped study and example site."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY.read_text())
    site = (EXAMPLES / "sites" / "example_site.yaml").read_text().replace("site: example-hospital", "site: north")
    (tmp_path / "site.yaml").write_text(site)
    (tmp_path / "clinical.csv").write_text(example_table())
    return tmp_path


def carried(centre: Path) -> None:
    """What people do between the README's commands: send public.json, put the kit's files beside the keys."""
    if (centre / "keys" / "public.json").exists() and not (centre / "north.json").exists():
        shutil.copy(centre / "keys" / "public.json", centre / "north.json")
        for site in PEERS:
            assert main(["keygen", f"keys of {site}", "--site", site]) == 0
            shutil.copy(centre / f"keys of {site}" / "public.json", centre / f"{site}.json")
    kit = centre / "kit" / "sites" / "north"
    if kit.exists() and not (centre / "keys" / "roster.json").exists():
        assert {path.name for path in kit.iterdir()} == {"ca.crt", "join.json", "roster.json"}
        for name in ("ca.crt", "join.json", "roster.json"):
            shutil.copy(kit / name, centre / "keys" / name)


def test_the_readmes_commands_work_in_their_order(
    centre: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the two that need a network, which are run as far as they go without one."""
    joined, served = [], []
    monkeypatch.setattr(ctfed.node, "join", joined.append)
    monkeypatch.setattr(server.deploy, "serve", lambda settings: served.append(settings) or 0)
    monkeypatch.setattr("builtins.input", lambda _: "y")
    commands = readme_commands()
    first = commands[: [words[0] for words in commands].index("serve") + 1]
    assert [words[0] for words in first] == ["keygen", "provision", "site", "approve", "join", "serve"]
    for words in first:
        code, _, err = run(capsys, *words)
        assert code == 0, (words, err)
        carried(centre)
    [settings] = joined
    assert settings.superlink == "hub.example.org:8000"
    assert settings.private_key == Path("keys/supernode.key")
    assert server.provision.read_server_folder(served[0].folder).roster is not None
    shutil.copy(centre / "kit" / "server" / "roster.json", centre / "roster.json")
    shutil.rmtree(centre / "kit")
    for words in commands[len(first) :]:
        code, _, err = run(capsys, *words)
        assert code == 0, (words, err)


def test_every_command_of_the_readme_exists() -> None:
    for words in readme_commands():
        build_parser().parse_args(words)


def provisioned(centre: Path) -> None:
    assert main(["keygen", "keys", "--site", "north"]) == 0
    carried(centre)
    assert main(["provision", "kit", *_public(("north", *PEERS)), "--address", "hub:1"]) == 0
    carried(centre)


def _public(sites: tuple[str, ...]) -> list[str]:
    return [word for site in sites for word in ("--site", f"{site}.json")]


def test_fingerprints_are_the_same_wherever_they_are_shown(centre: Path, capsys: pytest.CaptureFixture[str]) -> None:
    provisioned(centre)
    shown = capsys.readouterr().out
    fingerprint = read_roster(centre / "keys" / "roster.json").fingerprint("north")
    assert shown.count(fingerprint) == 2, "by keygen, and by provision"
    code, out, _ = run(capsys, "approve", "study.yaml", "--site", "site.yaml", "--plan-only")
    assert code == 0
    assert fingerprint in out
    assert not (centre / "ledger" / "approvals.json").exists()


@pytest.mark.parametrize("answer", ["", "n", "no", "Y e s"])
def test_only_a_yes_approves(
    centre: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    provisioned(centre)
    monkeypatch.setattr("builtins.input", lambda _: answer)
    code, out, _ = run(capsys, "approve", "study.yaml", "--site", "site.yaml")
    assert code == 1
    assert "not approved" in out
    assert not (centre / "ledger" / "approvals.json").exists()
    code, _, err = run(capsys, "join", "site.yaml", "--study", "study.yaml", "--folder", "keys")
    assert code == 2
    assert "study-not-approved" in err
    assert not (centre / "node").exists()


def test_nobody_at_the_terminal_is_no(
    centre: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioned(centre)

    def gone(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", gone)
    assert run(capsys, "approve", "study.yaml", "--site", "site.yaml")[0] == 1


def test_an_approved_study_that_is_changed_is_not_joined(centre: Path, capsys: pytest.CaptureFixture[str]) -> None:
    provisioned(centre)
    assert run(capsys, "approve", "study.yaml", "--site", "site.yaml", "--yes")[0] == 0
    edited(STUDY, "min_cell: 5", "min_cell: 6", centre).rename(centre / "study.yaml")
    code, _, err = run(capsys, "join", "site.yaml", "--study", "study.yaml", "--folder", "keys")
    assert code == 2
    assert "study-not-approved" in err


def test_a_site_without_trust_does_not_join_unless_its_data_are_public(
    centre: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    provisioned(centre)
    text = (centre / "site.yaml").read_text()
    start = text.index("trust:")
    bare = text[:start] + text[text.index("# In place of trust") :]
    (centre / "site.yaml").write_text(bare)
    code, _, err = run(capsys, "join", "site.yaml", "--study", "study.yaml", "--folder", "keys")
    assert code == 2
    assert "trust: found nothing" in err
    assert "'unmasked: true'" in err


def test_allow_writes_the_stewards_yes(centre: Path, capsys: pytest.CaptureFixture[str]) -> None:
    provisioned(centre)
    command = ("approve", "study.yaml", "--site", "site.yaml", "--allow", "roster-difference", "--yes")
    code, _, err = run(capsys, *command)
    assert code == 2
    assert "study-not-approved" in err
    assert run(capsys, "approve", "study.yaml", "--site", "site.yaml", "--yes")[0] == 0
    assert run(capsys, *command)[0] == 0
    entry = json.loads((centre / "ledger" / "ledger.jsonl").read_text().splitlines()[-1])
    assert entry["kind"] == "steward"
    assert entry["facts"]["allow"] == "roster-difference"
    assert entry["facts"]["roster"] == read_roster(centre / "keys" / "roster.json").digest


def test_a_trial_says_who_holds_the_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit = str(tmp_path / "kit")
    code, out, _ = run(capsys, "provision", kit, "--sites", "north,south,west", "--address", "hub:1")
    assert code == 0
    assert TRIAL in out
    assert "can unmask every site" in out
    code, _, err = run(capsys, "provision", str(tmp_path / "two"), "--sites", "north,south", "--address", "hub:1")
    assert code == 2
    assert "needs at least 3 sites, found 2" in err
    code, out, _ = run(
        capsys, "provision", str(tmp_path / "two"), "--sites", "north,south", "--address", "hub:1", "--unmasked"
    )
    assert code == 0
    assert "UNMASKED" in out


def test_serve_refuses_a_federation_of_two_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit = tmp_path / "kit"
    assert run(capsys, "provision", str(kit), "--sites", "north,south,west", "--address", "hub:1")[0] == 0
    for name in ("hub.json", "roster.json"):
        content = json.loads((kit / "server" / name).read_text())
        del content["sites"]["west"]
        (kit / "server" / name).write_text(json.dumps(content))
    code, _, err = run(capsys, "serve", str(STUDY), "--folder", str(kit / "server"), "--out", str(tmp_path / "out"))
    assert code == 2
    assert "needs at least 3 sites, found 2" in err


def test_serve_refuses_a_study_of_other_sites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit = tmp_path / "kit"
    assert run(capsys, "provision", str(kit), "--sites", "north,south,west", "--address", "hub:1")[0] == 0
    (tmp_path / "study.yaml").write_text(STUDY.read_text() + "sites: [north, south, east]\n")
    server_folder = str(kit / "server")
    code, _, err = run(capsys, "serve", str(tmp_path / "study.yaml"), "--folder", server_folder)
    assert code == 2
    assert "sites: found east, north, south, expected the sites of" in err


def test_simulate_takes_a_policy_and_can_do_without_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = edited(STUDY, "count: 30", "count: 2", tmp_path)
    arguments = ("simulate", str(quick), "--site", str(SITE), "--out")
    code, out, _ = run(capsys, *arguments, str(tmp_path / "clear"), "--unmasked")
    assert code == 0
    assert "unmasked: this server can see each site's sums" in out
    assert not (tmp_path / "clear" / "sites").exists()
    policy = tmp_path / "policy.yaml"
    policy.write_text("ctfed_policy: 1\nmin_patients: 500\n")
    code, _, err = run(capsys, *arguments, str(tmp_path / "strict"), "--policy", str(policy))
    assert code == 2
    assert "to which 0 sites contribute" in err, "every simulated site is below its own minimum of 500"
    policy.write_text("ctfed_policy: 1\nmin_patient: 500\n")
    code, _, err = run(capsys, *arguments, str(tmp_path / "wrong"), "--policy", str(policy))
    assert code == 2
    assert "did you mean 'min_patients'?" in err
