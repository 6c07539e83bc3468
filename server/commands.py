"""The server's commands, registered with ``ctfed.cli`` through the entry point 'ctfed.commands'."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import ctfed
from ctfed.federation.errors import CtfedError
from server.audit.commands import register as register_audit
from server.files_commands import register as register_rounds

EXAMPLES = Path(ctfed.__file__).resolve().parent.parent / "site_config"
DEMO = "ncctg_lung.yaml"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the server's commands to the command line."""
    _register_demo(commands)
    _register_simulate(commands)
    _register_study(commands)
    _register_provision(commands)
    _register_serve(commands)
    register_audit(commands)
    register_rounds(commands)


def _register_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="two examples on this machine: the NCCTG lung-cancer trial, and synthetic CTs of three sites",
        description="Run the NCCTG lung-cancer study over virtual sites; then write synthetic chest CTs of three "
        "sites, prepare each site's features, and run a study of them. Run again, it goes on where it was.",
    )
    demo.add_argument("--out", type=Path, default=Path("out"), help="folder for the results (default: out)")
    demo.add_argument("--no-imaging", action="store_true", help="the trial alone (seconds)")
    demo.set_defaults(command=_demo)


def _demo(options: argparse.Namespace) -> int:
    from server.demo import demo

    demo(options.out, imaging=not options.no_imaging)
    return 0


def _register_simulate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    simulate = commands.add_parser(
        "simulate",
        help="run a study over simulated sites on this machine",
        description="Run a study over simulated sites on this machine, through the same messages as a deployment.",
    )
    simulate.add_argument("study", type=Path, help="the study's YAML file")
    simulate.add_argument(
        "--site",
        type=Path,
        action="append",
        required=True,
        help="a site file (one with 'partition' gives many sites), or a folder of CENTRE/site.yaml",
    )
    simulate.add_argument("--out", type=Path, default=Path("out"), help="folder for the results (default: out)")
    simulate.add_argument(
        "--runner",
        choices=("in-process", "ray"),
        default="in-process",
        help="in-process (default), or Flower's own simulation engine on Ray",
    )
    simulate.add_argument("--unmasked", action="store_true", help="let the server see each simulated site's sums")
    simulate.add_argument("--policy", type=Path, help="a policy file: the limits of every simulated site")
    simulate.set_defaults(command=_simulate)


def _simulate(options: argparse.Namespace) -> int:
    from ctfed.federation.policy import load_policy
    from ctfed.site import site_files
    from server.simulate import simulate

    policy = None if options.policy is None else load_policy(options.policy)
    masked = False if options.unmasked else None
    sites = [file for path in options.site for file in site_files(path)]
    simulate(options.study, sites, options.out, runner=options.runner, masked=masked, policy=policy)
    return 0


def _register_study(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    study = commands.add_parser("study", help="check a study file", description="Look at a study before it runs.")
    actions = study.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="validate a study file and print its SHA-256")
    check.add_argument("study", type=Path, help="the study's YAML file")
    check.set_defaults(command=_check_study)
    plan = actions.add_parser(
        "plan",
        help="print what a study does, and an estimate of its rounds and bytes",
        description="Print the study's stages, and estimate rounds and bytes by running it over invented patients.",
    )
    plan.add_argument("study", type=Path, help="the study's YAML file")
    plan.add_argument("--sites", type=int, default=5, help="number of invented sites (default: 5)")
    plan.add_argument("--patients", type=int, default=150, help="patients of each invented site (default: 150)")
    plan.add_argument("--dry", action="store_true", help="print the stages alone, without an estimate")
    plan.set_defaults(command=_plan_study)
    schema = actions.add_parser("schema", help="print the JSON Schema of study files")
    schema.set_defaults(command=_print_schema)


def _check_study(options: argparse.Namespace) -> int:
    from ctfed.study import load_study
    from server.study_plan import described

    for line in described(load_study(options.study)):
        print(line)
    return 0


def _plan_study(options: argparse.Namespace) -> int:
    from ctfed.study import load_study
    from server.study_plan import described, estimate, staged

    study = load_study(options.study)
    for line in (*described(study), "", *staged(study)):
        print(line)
    if not options.dry:
        print("", flush=True)
        for line in estimate(study, options.sites, options.patients):
            print(line)
    return 0


def _print_schema(options: argparse.Namespace) -> int:
    from ctfed.study import study_json_schema

    print(json.dumps(study_json_schema(), indent=2))
    return 0


def _register_provision(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    provision = commands.add_parser(
        "provision",
        help="make a federation: certificates, the hub's file and the sites' roster",
        description="Make the certificate authority, the server's folder, and one folder to send to each site.",
    )
    provision.add_argument("folder", type=Path, help="where they go; it is made readable by its owner alone")
    who = provision.add_mutually_exclusive_group(required=True)
    who.add_argument(
        "--site", type=Path, action="append", metavar="PUBLIC.JSON", help="a site's public.json, from `ctfed keygen`"
    )
    who.add_argument("--sites", metavar="A,B,C", help="trials on one machine: names of sites, whose keys are made here")
    provision.add_argument("--address", required=True, help="host:port at which the sites reach the server")
    provision.add_argument("--host", action="append", default=[], help="another name that the certificate must hold")
    provision.add_argument(
        "--unmasked", action="store_true", help="make no roster: the server will see each site's sums (public data)"
    )
    provision.set_defaults(command=_provision)


def _provision(options: argparse.Namespace) -> int:
    from ctfed.keys import read_public_keys
    from server.provision import make_trial_keys, provision

    if options.sites is not None:
        names = [name.strip() for name in options.sites.split(",") if name.strip()]
        if not names:
            raise CtfedError(f"--sites: found {options.sites!r}, expected names with commas between them")
        keys = make_trial_keys(options.folder, names)
    else:
        keys = [read_public_keys(path) for path in options.site]
    made = provision(options.folder, keys, options.address, hosts=options.host, masked=not options.unmasked)
    print(f"{options.folder}: a federation of {len(made.hub.sites)} sites at {options.address}")
    if options.sites is not None:
        print(TRIAL)
    if made.roster is None:
        print("UNMASKED: there is no roster, and the server will see each site's sums; for public data alone")
        return 0
    for site in made.hub.sites:
        print(f"  {site}: {made.roster.fingerprint(site)}")
    print(f"roster {made.roster.digest}")
    if options.sites is None:
        print(f"send each site its folder in {options.folder / 'sites'}; it holds no private key")
    return 0


TRIAL = (
    "A TRIAL: every site's private keys were made here. Whoever runs this command can unmask every site; in a real "
    "federation each site makes its own keys with `ctfed keygen`, and sends its public.json alone."
)


def _register_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="run a study over real sites: SuperLink with TLS and node authentication",
        description="Start Flower's SuperLink for the sites, run the study, and go on where an earlier run stopped.",
    )
    serve.add_argument("study", type=Path, help="the study's YAML file")
    serve.add_argument("--folder", type=Path, required=True, help="the server's folder made by `ctfed provision`")
    serve.add_argument("--out", type=Path, default=Path("out"), help="folder for journal and results (default: out)")
    serve.add_argument(
        "--state",
        type=Path,
        help="folder for the SuperLink's database, logs and files, kept between runs (default: 'state' in --folder)",
    )
    serve.add_argument("--host", default="127.0.0.1", help="interface to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000)")
    serve.set_defaults(command=_serve)


def _serve(options: argparse.Namespace) -> int:
    from server.deploy import ServeSettings, serve

    settings = ServeSettings(options.folder, options.study, options.out, options.host, options.port, options.state)
    return serve(settings)
