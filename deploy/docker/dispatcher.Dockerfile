# syntax=docker/dockerfile:1.7
# The dispatcher. Build from the repository's root, for both platforms:
#   docker buildx build --platform linux/amd64,linux/arm64 -f deploy/docker/dispatcher.Dockerfile -t pointsman-dispatcher .
ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /src
RUN python -m venv /opt/pointsman
COPY constraints.txt pyproject.toml README.md LICENSE NOTICE ./
COPY pointsman pointsman
COPY dispatcher_service dispatcher_service
# The group `dispatcher` with the clients of a shared ledger, and nothing of the scorer.
RUN /opt/pointsman/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[dispatcher,redis]'

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="pointsman-dispatcher" org.opencontainers.image.licenses="Apache-2.0"
# A number, so that runAsNonRoot can be checked without looking into the image.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin pointsman
COPY --from=build /opt/pointsman /opt/pointsman
COPY LICENSE NOTICE /usr/share/doc/pointsman/
USER 10001:10001
# Nothing is written but an embedded ledger, where one is configured: give that a volume, the rest may be read-only.
ENV PATH=/opt/pointsman/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    DISPATCHER_LISTEN=0.0.0.0:50052 DISPATCHER_METRICS_LISTEN=0.0.0.0:9102 DISPATCHER_MODE=production
EXPOSE 50052 9102
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-m", "pointsman.runtime.probe", "127.0.0.1:50052"]
# Signals reach the process itself, which drains on SIGTERM.
ENTRYPOINT ["python", "-m", "dispatcher_service"]
