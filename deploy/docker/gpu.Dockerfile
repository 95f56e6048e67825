# The inference server for NVIDIA GPUs: the server's image, with CUDA's and cuDNN's libraries. From the repository root:
#
#   docker build --file deploy/docker/server.Dockerfile --tag inferry-server:0.1.0 .
#   docker build --file deploy/docker/gpu.Dockerfile --tag inferry-server-gpu:0.1.0 .
#
# The driver is the host's, and must run CUDA 13 (580 or newer).
ARG SERVER_IMAGE=inferry-server:0.1.0


FROM ${SERVER_IMAGE}
LABEL org.opencontainers.image.title="inferry-server-gpu"

USER 0:0
# The server's own packages are in this lock too, in the same versions, so nothing of the server's layer changes.
RUN --mount=type=bind,source=requirements-cuda.txt,target=/tmp/requirements-cuda.txt \
    --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/inferry/bin/python install --compile --only-binary :all: \
        --require-hashes --requirement /tmp/requirements-cuda.txt
USER 10001:10001

# The provider is demanded: a pod without a GPU must not compute on two cores what a GPU should.
ENV INFERRY_PROVIDER=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
