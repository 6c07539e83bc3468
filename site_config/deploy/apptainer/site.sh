#!/bin/sh
# One site on a cluster with Apptainer. usage: sh site.sh COMMAND...   for example: sh site.sh doctor --site /site/site.yaml
# SITE holds site.yaml and the keys, DATA the scans or the table, OUTPUT is written, IMAGE is the .sif file.
set -eu
: "${IMAGE:=ctfed-site.sif}" "${SITE:=$PWD/site}" "${DATA:=$PWD/data}" "${OUTPUT:=$PWD/output}"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/ctfed-XXXXXX") # the container's /tmp; memory is scarce on login nodes
trap 'rm -rf "$scratch"' EXIT
gpu=""
[ -e /dev/nvidia0 ] && gpu=--nv
# shellcheck disable=SC2086
apptainer run --containall --no-home $gpu --bind "$SITE:/site:ro,$DATA:/data:ro,$OUTPUT:/output,$scratch:/tmp" \
    --env "HTTPS_PROXY=${HTTPS_PROXY:-}" "$IMAGE" "$@"
