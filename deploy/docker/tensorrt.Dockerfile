# The inference server with TensorRT: the GPU image, with the libraries of an image that has TensorRT 10 for
# CUDA 13, which you name. From the repository root, after deploy/docker/gpu.Dockerfile:
#
#   docker build --file deploy/docker/tensorrt.Dockerfile --build-arg TENSORRT_IMAGE=... \
#       --tag inferry-server-tensorrt:0.1.0 .
ARG GPU_IMAGE=inferry-server-gpu:0.1.0
ARG TENSORRT_IMAGE


FROM ${TENSORRT_IMAGE} AS tensorrt
# One folder, wherever the image keeps them, and a failure here if it has none.
RUN mkdir /tensorrt \
    && find / -xdev \( -name 'libnvinfer*.so.10*' -o -name 'libnvonnxparser*.so.10*' \) -exec cp --no-clobber --no-dereference {} /tensorrt/ \; \
    && test -e /tensorrt/libnvinfer.so.10 && test -e /tensorrt/libnvonnxparser.so.10


FROM ${GPU_IMAGE}
LABEL org.opencontainers.image.title="inferry-server-tensorrt"
COPY --from=tensorrt /tensorrt /opt/tensorrt

ENV LD_LIBRARY_PATH=/opt/tensorrt \
    INFERRY_PROVIDER=tensorrt
