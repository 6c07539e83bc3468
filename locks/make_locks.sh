#!/bin/sh
# Writes the hash-checked locks of the images from pyproject.toml and constraints.txt. usage: sh locks/make_locks.sh
# Needs uv (flwr brings it). Set TORCH_WHEELS to a folder or index with torch's CPU wheels where pytorch.org is far.
set -eu
cd "$(dirname "$0")/.."
UV=${UV:-.venv/bin/uv}
TORCH_WHEELS=${TORCH_WHEELS:-https://download.pytorch.org/whl/cpu}
SOURCES="acvl-utils autograd-gamma docopt pyradiomics-bhklab" # no wheel is published for these: the builder makes them
skip=""
for name in $SOURCES; do skip="$skip --no-emit-package $name"; done
compile() { "$UV" pip compile -q --generate-hashes --no-annotate --no-header --python-version 3.11 --python-platform x86_64-manylinux_2_28 "$@"; }

compile locks/build.in -c constraints.txt -o locks/build.txt
compile locks/sbom.in -o locks/sbom.txt
# shellcheck disable=SC2086
compile pyproject.toml --extra report -c constraints.txt $skip -o locks/server.txt
SITE="pyproject.toml --extra report --extra imaging --extra segmentation --extra tuning -c constraints.txt"
# shellcheck disable=SC2086
compile $SITE $skip -o locks/site-cuda.txt
# torch alone comes from another place: its CPU build is a version of its own, 2.13.0+cpu.
printf 'torch==%s+cpu\n' "$(sed -n 's/^torch==//p' constraints.txt)" >locks/cpu.in
# shellcheck disable=SC2086
compile $SITE -c locks/cpu.in --find-links "$TORCH_WHEELS" $skip -o locks/site-cpu.txt
rm locks/cpu.in
: >locks/source.in
for name in $SOURCES; do tr _ - <constraints.txt | grep "^$name==" >>locks/source.in; done
compile locks/source.in --no-deps --no-binary :all: -o locks/source.txt
rm locks/source.in
