# Invoker's controller and gateway: one image, two commands (`invoker controller`, `invoker gateway`) on any base with
# Python >= 3.11.
#
#   docker build -t invoker .                 (buildah bud -t invoker . alike; `make images` does it for all images)
#
# What is installed is pinned by hash (requirements/image.txt) and compiled. With wheels in deploy/image/wheels nothing
# is downloaded (scripts/image-wheels). No shell is used, neither here nor when it runs. See docs/images.md.
ARG BASE=python:3.13-slim

FROM ${BASE} AS built
ARG CREATED=1970-01-01T00:00:00Z
USER 0:0
COPY requirements/image.txt requirements/image-build.txt functions/runtimes/python/prepare.py /build/
COPY deploy/image /build/image/
COPY pyproject.toml README.md LICENSE /build/source/
COPY functions/samples /build/source/functions/samples
COPY invoker /build/source/invoker
COPY trigger /build/source/trigger
RUN ["python3", "-I", "/build/image/build.py", "/build"]

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=https://invoker.dev
LABEL org.opencontainers.image.title="invoker" \
      org.opencontainers.image.description="Invoker's controller and gateway: events in, one run per matching function, results out" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.url="https://invoker.dev" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=built /opt/invoker /opt/invoker
COPY --from=built /image/etc /etc
COPY --from=built --chown=10001:10001 /image/state /var/lib/invoker
ENV PATH=/opt/invoker/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    HOME=/var/lib/invoker \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /var/lib/invoker
USER 10001:10001
ENTRYPOINT ["invoker"]
CMD ["--help"]
