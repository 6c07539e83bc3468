#!/bin/sh
# Run in the build, on /opt/ctfed/venv: ctfed itself, examples, what a running container does not need, bill of materials,
# bytecode. usage: sh finish_venv.sh server|site
set -eu
target=$1
venv=/opt/ctfed/venv
pip="/opt/build/bin/pip --python $venv/bin/python"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp -r /src/site_config "$site/site_config" # beside the packages, where `ctfed demo` looks
$pip install -q --no-compile --no-deps --no-index /ctfed/*.whl
$pip check

# uv installs packages for Flower's apps while they run; these images forbid that, and its program is 60 MB.
$pip uninstall -q -y uv
for package in numpy scipy pandas matplotlib mpl_toolkits sklearn pyarrow greenlet; do
    [ ! -d "$site/$package" ] || find "$site/$package" -type d -name tests -prune -exec rm -rf {} +
done
if [ "$target" = server ]; then
    # Of lifelines the server reads the demo's table, as a file, and imports nothing; the others are what it would import.
    $pip uninstall -q -y pandas formulaic narwhals autograd autograd-gamma interface-meta pytz tzdata
    find "$site/lifelines" -type f ! -name lung.csv -delete
    find "$site/lifelines" -type d -empty -delete
    # Frameworks of tests; sources and types of compiled modules; fonts of PDF and PostScript, example and toolbar images,
    # where figures are SVG and PNG; a decoder of images, where none are read, which Pillow does without.
    rm -rf "$site"/sqlalchemy/testing "$site"/alembic/testing "$site"/Crypto/SelfTest
    find "$site" -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' -o -name '*.a' \) -delete
    (cd "$site/matplotlib/mpl-data" && rm -rf fonts/afm fonts/pdfcorefonts images sample_data plot_directive)
    rm -rf "$site"/PIL/_avif.*.so "$site"/pillow.libs/libavif-*
fi
"$venv/bin/python" /src/locks/strip_libraries.py "$site"

mkdir -p /opt/ctfed/sbom
/opt/sbom/bin/cyclonedx-py environment --output-reproducible --of JSON -o /opt/ctfed/sbom/python.cdx.json "$venv/bin/python"
if [ "$target" = server ]; then
    # Bytecode of what runs, not of all that there is: that would be twice as much.
    home=$(mktemp -d)
    "$venv/bin/python" -m compileall -q "$site/server" "$site/flwr" "$site/anyio" "$site/httpcore" "$site/httpx"
    HOME=$home MPLCONFIGDIR=$home "$venv/bin/ctfed" demo --no-imaging --out "$home/out"
    HOME=$home "$venv/bin/python" -c 'import alembic.command, alembic.ext, grpc.aio, grpc_health.v1.health, server.app, server.deploy, \
        ctfed.federation.client_app, ctfed.federation.flower.executor, flwr.cli.build, flwr.superlink.main, \
        flwr.superlink.cli.flower_superlink, flwr.superlink.cli.flwr_serverapp, flwr.supernode.cli, \
        flwr.supernode.start_client_internal, sqlalchemy.dialects.postgresql, sqlalchemy.dialects.sqlite, uvicorn.lifespan.on, \
        uvicorn.loops.uvloop, uvicorn.protocols.http.httptools_impl, uvicorn.protocols.websockets.websockets_impl'
    rm -rf "$home"
else
    "$venv/bin/python" -m compileall -q -j 0 "$site" || true # files that are no Python 3.11 stay uncompiled
fi
chmod -R go=rX,u=rwX /opt/ctfed
