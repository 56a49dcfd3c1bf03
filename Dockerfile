# One image for all pods: those of nodes, of flows, and of a coordinator inside the cluster.
#
#   docker build -t seeknal-k8s .                                      without a project
#   docker build -t seeknal-k8s --build-arg PROJECT=examples/shop .    with one that lies below here
#
# Any other project has a file of its own, and a .dockerignore with target/ and .seeknal-k8s/ in it:
#
#   FROM seeknal-k8s
#   COPY . /project
#
# There is no `# syntax=` line: it would have every build ask a public registry first.

ARG PYTHON_IMAGE=python:3.11-slim
ARG PROJECT=

# Of the lock file only what this image installs, so that the large layer is made again when that
# changes, and not when a linter does. The locked uv is also the one that builds and that runs nodes.
FROM ${PYTHON_IMAGE} AS requirements
WORKDIR /build
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache \
    version=$(sed -n '/^name = "uv"$/{n;s/version = "\(.*\)"/\1/p;}' uv.lock) \
    && python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
        --target=/tmp/uv "uv==$version" \
    && mkdir /locked && mv /tmp/uv/bin/uv /locked
# The optional dependencies that flow pods need. EXTRA= leaves them out.
ARG EXTRA=prefect
RUN /locked/uv export --quiet --frozen --no-dev --no-emit-project ${EXTRA:+--extra} ${EXTRA} \
    --output-file=/locked/requirements.txt

# Nobody runs the tests of pandas here: they and their like are a tenth of the whole. The uv that
# installs comes from the stage above and does not stay; the one that runs nodes is a dependency.
FROM ${PYTHON_IMAGE} AS dependencies
RUN --mount=type=cache,target=/root/.cache \
    --mount=type=bind,from=requirements,source=/locked,target=/locked \
    /locked/uv venv --quiet --python=python3 --no-python-downloads /opt/venv \
    && /locked/uv pip install --quiet --python=/opt/venv --no-python-downloads --link-mode=copy \
        --require-hashes --compile-bytecode -r /locked/requirements.txt \
    && find /opt/venv/lib -type d -name tests -prune -exec rm -rf {} +

FROM dependencies AS package
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY seeknal_k8s seeknal_k8s
RUN --mount=type=cache,target=/root/.cache \
    /opt/venv/bin/uv pip install --quiet --python=/opt/venv --link-mode=copy --prefix=/package \
        --no-deps --compile-bytecode .

FROM scratch AS project
FROM scratch AS project-given
ARG PROJECT
COPY ${PROJECT} /
FROM project${PROJECT:+-given} AS chosen-project

FROM dependencies
RUN echo 'seeknal:x:10001:10001::/tmp:/usr/sbin/nologin' >>/etc/passwd \
    && echo 'seeknal:x:10001:' >>/etc/group
# The root file system may be read-only: whatever is written goes below /tmp. HOME is a folder that
# is there even when a fresh volume is mounted at /tmp, for DuckDB refuses one that is not.
ENV PATH=/opt/venv/bin:$PATH VIRTUAL_ENV=/opt/venv HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /project
# No ENTRYPOINT: Prefect's Kubernetes worker says what to run in a container's `args`.
CMD ["seeknal-k8s", "--help"]
USER 10001:10001
ARG VERSION=dev
LABEL org.opencontainers.image.title="seeknal-k8s" \
    org.opencontainers.image.description="Run Seeknal data pipelines node by node, each as a Kubernetes Job." \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}"
# --link: what these layers are does not depend on those before them.
COPY --link --from=package /package /opt/venv
COPY --link --from=chosen-project / /project/
