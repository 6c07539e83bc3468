#!/bin/sh
# Run in the build, on the base image's own files: away goes what a running container never runs or reads: installers,
# tools that manage users and disks, documentation. A shell, coreutils and tar stay for people who look inside and for
# `kubectl cp`; Debian's list of packages stays true, for scanners, and each package's licence stays.
set -eu
export DEBIAN_FRONTEND=noninteractive
python=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
# perl goes last, because other packages' scripts are written in it.
unwanted="python3-pip python3-pip-whl python3-venv python3.11-venv python3-setuptools python3-setuptools-whl
    python3-pkg-resources python3-wheel python3-lib2to3 apt libapt-pkg6.0 gpgv debian-archive-keyring adduser
    libgnutls30 libp11-kit0 libtasn1-6 libidn2-0 libunistring2 libhogweed6 libnettle8 libxxhash0
    login passwd libpam-modules libpam-modules-bin libpam-runtime libpam0g libsemanage2 libsemanage-common libsepol2
    libnsl2 libtirpc3 libtirpc-common libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libkeyutils1
    mount util-linux util-linux-extra bsdutils e2fsprogs logsave libext2fs2 libss2 libfdisk1 libmount1 libblkid1
    libsmartcols1 libsystemd0 libudev1 libgcrypt20 libgpg-error0 init-system-helpers sysvinit-utils
    openssl debconf perl-base"
for package in $unwanted; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ] ||
        dpkg --purge --force-depends --force-remove-essential --force-remove-protected "$package" >/dev/null
done
rm -f "$python"/lib-dynload/nis.*.so # it needed libnsl2
if find "$python" -name "*.so" -exec ldd {} + | grep "not found"; then exit 1; fi
mkdir -p /opt/ctfed/sbom
dpkg-query -W -f '${Package}\t${Version}\n' >/opt/ctfed/sbom/debian.tsv
# The same of a Python that was not installed by Debian.
rm -rf "$python"/site-packages/* /usr/local/bin/pip* /usr/local/bin/wheel /usr/local/bin/idle* /usr/local/bin/2to3* \
    /usr/local/bin/pydoc* /usr/local/include/python3.* /usr/share/python-wheels
for part in ensurepip test idlelib lib2to3 turtledemo tkinter pydoc_data; do rm -rf "${python:?}/$part"; done
# Debian's own slim images leave this out as well, but for glibc's tables of character sets: Python has its own.
find /usr/share/doc ! -type d ! -name copyright -delete
rm -rf /usr/share/man/* /usr/share/info/* /usr/share/locale/* /usr/share/lintian /usr/share/bash-completion \
    /usr/lib/*/gconv /var/lib/apt /var/cache/* /var/log/* /tmp/* /var/tmp/* /root/.cache
find / -xdev -type f \( -perm -4000 -o -perm -2000 \) -exec chmod ug-s {} + # nobody gains rights here
find "$python" -name __pycache__ -prune -exec rm -rf {} +
python3 -m compileall -q "$python"
