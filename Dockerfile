# The Poolgrad service. Build:  docker build -t poolgrad .
# Run:    docker run --rm --read-only -p 8000:8000 poolgrad
ARG PYTHON=3.13

# Builds the wheels, ours and those it needs; nothing else of this stage is shipped.
FROM python:${PYTHON}-slim AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY pyx pyx
COPY service service
RUN python -m pip wheel --no-cache-dir --wheel-dir /wheels '.[service]'

# Installs the wheels where they can be copied from as one layer.
FROM python:${PYTHON}-slim AS install
COPY --from=build /wheels /wheels
RUN python -m venv --without-pip /opt/poolgrad \
    && python -m pip --python /opt/poolgrad/bin/python install --no-cache-dir --no-index \
        --find-links /wheels 'poolgrad[service]'

FROM python:${PYTHON}-slim
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="poolgrad" \
      org.opencontainers.image.description="Pooling layers, forward and backward, over HTTP" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="BSD-3-Clause"
COPY --from=install /opt/poolgrad /opt/poolgrad
ENV PATH=/opt/poolgrad/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    POOLGRAD_SERVICE_HOST=0.0.0.0 \
    POOLGRAD_SERVICE_PORT=8000
# By number, so that Kubernetes' runAsNonRoot can tell.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ['POOLGRAD_SERVICE_PORT']}/health/ready\", timeout=2)"]
CMD ["poolgrad", "serve"]
