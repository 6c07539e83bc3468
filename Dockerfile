# Two images: `server` (no torch) and `site` (the imaging stack). Build from a clean clone:
#   docker build --target server -t ctfed-server:0.1.0 .
#   docker build --target site   -t ctfed-site:0.1.0 .
#   docker build --target site --build-arg TORCH=cuda -t ctfed-site:0.1.0-cuda .
# BASE_IMAGE needs Python 3.11, pip, venv and Debian's apt; pin it by digest (image@sha256:...) for a release.
# WHEELS: a folder or index with torch's CPU wheel; PyPI serves its CUDA build alone.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

# -- what both images share: the base image without installers, documentation and caches, as one layer
FROM ${BASE_IMAGE} AS base-files
COPY locks/finish_base.sh /src/
RUN sh /src/finish_base.sh && rm -r /src

FROM scratch AS base
ARG BASE_IMAGE
# A whole file system on purpose: what was removed above is gone, not hidden below a layer.
# hadolint ignore=DL3067
COPY --from=base-files / /
ENV LANG=C.UTF-8 \
    PYTHONUTF8=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    PATH=/opt/ctfed/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
LABEL org.opencontainers.image.base.name="${BASE_IMAGE}"

# -- wheels of the packages that publish none, built without build isolation from locked tools; the SBOM's tool
FROM ${BASE_IMAGE} AS builder
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV LANG=C.UTF-8 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# gcc's version is the base image's Debian's; the official Python images bring Python's headers, Debian's package does not.
# hadolint ignore=DL3008
RUN apt-get update -q && apt-get install -qy --no-install-recommends gcc libc6-dev \
    && header="$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" \
    && { [ -f "$header" ] || apt-get install -qy --no-install-recommends python3-dev; } \
    && rm -rf /var/lib/apt/lists/*
COPY locks/*.txt /src/locks/
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install -q --require-hashes --only-binary :all: -r /src/locks/build.txt \
    && /opt/build/bin/pip wheel -q --no-deps --no-build-isolation --no-binary :all: --require-hashes -w /wheels -r /src/locks/source.txt
RUN python3 -m venv /opt/sbom \
    && /opt/sbom/bin/pip install -q --require-hashes --only-binary :all: -r /src/locks/sbom.txt

# -- ctfed's own wheel; a stage of its own, so that a change of code does not install torch again
FROM builder AS wheel
COPY pyproject.toml README.md LICENSE /src/
COPY ctfed /src/ctfed
COPY server /src/server
RUN /opt/build/bin/pip wheel -q --no-deps --no-build-isolation -w /ctfed /src

# -- the server's environment
FROM builder AS server-venv
RUN python3 -m venv --without-pip /opt/ctfed/venv \
    && /opt/build/bin/pip --python /opt/ctfed/venv/bin/python install -q --no-compile --no-deps --require-hashes --only-binary :all: \
       -r /src/locks/server.txt \
    && /opt/build/bin/pip --python /opt/ctfed/venv/bin/python install -q --no-compile --no-deps --no-index --find-links /wheels autograd-gamma
COPY --from=wheel /ctfed /ctfed
COPY site_config /src/site_config
COPY locks/finish_venv.sh locks/strip_libraries.py /src/locks/
RUN sh /src/locks/finish_venv.sh server

FROM base AS server
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL name="ctfed-server" \
      version="${VERSION}" \
      authorization="This Dockerfile is intended to build a container image that will be publicly accessible in the CHAIMELEON images repository." \
      org.opencontainers.image.title="ctfed-server" \
      org.opencontainers.image.description="The server of ctfed: adds up sums over patients, never sees patients" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN echo "ctfed:x:1000:" >>/etc/group \
    && echo "ctfed:x:1000:1000:ctfed:/home/ctfed:/usr/bin/false" >>/etc/passwd \
    && install -d -o 1000 -g 1000 -m 0755 /home/ctfed
COPY --from=server-venv /opt/ctfed /opt/ctfed
COPY --chmod=0555 entrypoint.py /opt/ctfed/entrypoint.py
WORKDIR /opt/ctfed
USER 1000:1000
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/ctfed/venv/bin/python", "/opt/ctfed/entrypoint.py"]

# -- the site's environment
FROM builder AS site-venv
# cpu or cuda: the lock of that name.
ARG TORCH=cpu
ARG WHEELS=https://download.pytorch.org/whl/cpu/torch/
RUN python3 -m venv --without-pip /opt/ctfed/venv \
    && /opt/build/bin/pip --python /opt/ctfed/venv/bin/python install -q --no-compile --no-deps --require-hashes --only-binary :all: \
       --find-links "$WHEELS" \
       -r "/src/locks/site-$TORCH.txt" \
    && /opt/build/bin/pip --python /opt/ctfed/venv/bin/python install -q --no-compile --no-deps --no-index /wheels/*.whl
COPY --from=wheel /ctfed /ctfed
COPY site_config /src/site_config
COPY locks/finish_venv.sh locks/strip_libraries.py /src/locks/
RUN sh /src/locks/finish_venv.sh site

FROM base AS site
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL name="ctfed-site" \
      version="${VERSION}" \
      authorization="This Dockerfile is intended to build a container image that will be publicly accessible in the CHAIMELEON images repository." \
      org.opencontainers.image.title="ctfed-site" \
      org.opencontainers.image.description="A centre's side of ctfed: prepares scans, answers with masked sums over its patients" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# The home and the three folders in it are where CHAIMELEON mounts data; elsewhere they stay empty.
RUN echo "ctfed:x:1000:" >>/etc/group \
    && echo "ctfed:x:1000:1000:ctfed:/home/chaimeleon:/usr/bin/false" >>/etc/passwd \
    && install -d -o 1000 -g 1000 -m 0755 /home/chaimeleon /home/chaimeleon/datasets /home/chaimeleon/persistent-home \
       /home/chaimeleon/persistent-shared-folder
COPY --from=site-venv /opt/ctfed /opt/ctfed
COPY --chmod=0555 entrypoint.py /opt/ctfed/entrypoint.py
WORKDIR /opt/ctfed
USER 1000:1000
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/ctfed/venv/bin/python", "/opt/ctfed/entrypoint.py"]
