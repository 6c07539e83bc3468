#!/bin/sh
# Runs the image under grand-challenge's conditions. usage: sh run.sh COMMAND...
set -eu
: "${ENGINE:=docker}" "${IMAGE:=ctfed-site:0.1.0}" "${INPUT:=$PWD/input}" "${OUTPUT:=$PWD/output}" "${MODEL:=$PWD/model}"
exec "$ENGINE" run --rm --network none --read-only --cap-drop ALL --security-opt no-new-privileges --tmpfs /tmp \
    -v "$INPUT:/input:ro" -v "$OUTPUT:/output" -v "$MODEL:/opt/ml/model:ro" "$IMAGE" "$@"
