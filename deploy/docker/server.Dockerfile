# The inference server for CPU. Build it from the repository root:
#
#   docker build --file deploy/docker/server.Dockerfile --tag inferry-server:0.1.0 .
#
# A tag can be moved, a digest cannot: for builds that must repeat to the byte, look the digest up with
# `docker buildx imagetools inspect python:3.12.14-slim-trixie` and pass it on:
# `--build-arg PYTHON_IMAGE=python:3.12.14-slim-trixie@sha256:...`
ARG PYTHON_IMAGE=python:3.12.14-slim-trixie


FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src

# The build backend comes from the development lock, checked by hash like everything else that is installed.
COPY requirements-dev.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    awk '/^[a-z]/ { wanted = /^setuptools==/ } wanted' requirements-dev.txt > build.txt \
    && pip install --require-hashes --requirement build.txt

COPY pyproject.toml README.md LICENSE ./
COPY proto proto
COPY trainer trainer
COPY server server
COPY clients clients
RUN pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheel .


FROM ${PYTHON_IMAGE} AS environment
WORKDIR /src

# The lock goes in before our code: a changed line of ours leaves the large layer as it is.
# The environment has no pip of its own, and bytecode is compiled here because the root may be read-only later.
COPY requirements-server.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/inferry \
    && pip --python /opt/inferry/bin/python install --compile --only-binary :all: \
        --require-hashes --requirement requirements-server.txt
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    pip --python /opt/inferry/bin/python install --compile --no-cache-dir --no-deps --no-index /wheel/*.whl


FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="inferry-server" \
      org.opencontainers.image.description="Serves ONNX image classifiers over gRPC with dynamic batching" \
      org.opencontainers.image.licenses="Apache-2.0"

# Numbers, not names: Kubernetes can prove that 10001 is not root, it cannot prove it of a name.
RUN groupadd --gid 10001 inferry \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin inferry

COPY --from=environment /opt/inferry /opt/inferry

# In a container the loopback default would be unreachable; who may reach the ports is the network's decision.
# The image has no CUDA libraries: a driver that is handed to it (`--gpus all`) must not choose the provider.
# ONNX Runtime's releases report their use to Microsoft unless told not to before they are loaded.
ENV PATH=/opt/inferry/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    INFERRY_PROVIDER=cpu \
    INFERRY_REPOSITORY=/models \
    INFERRY_GRPC_ADDRESS=0.0.0.0:8001 \
    INFERRY_HTTP_ADDRESS=0.0.0.0:8002

USER 10001:10001
EXPOSE 8001 8002

# SIGTERM starts the drain. The exec form makes the server process 1, so that the signal reaches it.
# No HEALTHCHECK: health is a gRPC service, which Kubernetes asks by itself.
STOPSIGNAL SIGTERM
ENTRYPOINT ["inferry-serve"]
