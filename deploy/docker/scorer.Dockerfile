# syntax=docker/dockerfile:1.7
# The scorer: stateless, with the default artefact inside. Build from the repository's root, for both platforms:
#   docker buildx build --platform linux/amd64,linux/arm64 -f deploy/docker/scorer.Dockerfile -t pointsman-scorer .
ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /src
RUN python -m venv /opt/pointsman
COPY constraints.txt pyproject.toml README.md LICENSE NOTICE ./
COPY pointsman pointsman
COPY scorer_service scorer_service
# The group `scorer` and nothing of the dispatcher: neither its code nor its dependencies.
RUN /opt/pointsman/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[scorer]'

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="pointsman-scorer" org.opencontainers.image.licenses="Apache-2.0"
# A number, so that runAsNonRoot can be checked without looking into the image.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin pointsman
COPY --from=build /opt/pointsman /opt/pointsman
COPY LICENSE NOTICE /usr/share/doc/pointsman/
USER 10001:10001
# Nothing is written: run it with a read-only root file system.
ENV PATH=/opt/pointsman/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    SCORER_LISTEN=0.0.0.0:50051 SCORER_METRICS_LISTEN=0.0.0.0:9101 SCORER_MODE=production
EXPOSE 50051 9101
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-m", "pointsman.runtime.probe", "127.0.0.1:50051"]
# Signals reach the process itself, which drains on SIGTERM.
ENTRYPOINT ["python", "-m", "scorer_service"]
