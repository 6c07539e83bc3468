#!/bin/sh
# Run in the build, on /opt/ctfed/venv: ctfed itself, examples, bill of materials, what a running container does not need, bytecode.
set -eu
venv=/opt/ctfed/venv
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp -r /src/site_config "$site/site_config" # beside the packages, where `ctfed demo` looks
/opt/build/bin/pip --python "$venv/bin/python" install -q --no-deps --no-index /ctfed/*.whl
/opt/build/bin/pip --python "$venv/bin/python" check
mkdir -p /opt/ctfed/sbom
/opt/sbom/bin/cyclonedx-py environment --output-reproducible --of JSON -o /opt/ctfed/sbom/python.cdx.json "$venv/bin/python"
dpkg-query -W -f '${Package}\t${Version}\n' >/opt/ctfed/sbom/debian.tsv
# uv installs packages for Flower's apps while they run; these images forbid that, and its program is 60 MB.
rm -f "$venv/bin/uv" "$venv/bin/uvx"
for package in numpy scipy pandas matplotlib sklearn pyarrow; do
    [ ! -d "$site/$package" ] || find "$site/$package" -type d -name tests -prune -exec rm -rf {} +
done
"$venv/bin/python" -m compileall -q -j 0 "$site" || true # files that are no Python 3.11 stay uncompiled
chmod -R go=rX,u=rwX /opt/ctfed
