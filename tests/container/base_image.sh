#!/bin/sh
# Makes a base image where there is neither an engine nor a registry: Debian bookworm with Python 3.11, by debootstrap.
# usage (as root): sh tests/container/base_image.sh FOLDER   then: CTFED_BASE_IMAGE=localhost/python-base:bookworm
set -eu
work=$1
name=localhost/python-base:bookworm
podman image exists "$name" && exit 0
mkdir -p "$work"
debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$work/rootfs" >"$work/debootstrap.log" 2>&1
ln -sf /usr/bin/python3 "$work/rootfs/usr/local/bin/python3"
ln -sf /usr/bin/python3 "$work/rootfs/usr/local/bin/python"
rm -rf "$work/rootfs/var/cache/apt/archives/"*.deb
tar -C "$work/rootfs" -cf "$work/base.tar" .
rm -rf "$work/rootfs"
podman import -q "$work/base.tar" "$name"
