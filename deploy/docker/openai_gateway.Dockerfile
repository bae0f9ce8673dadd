# syntax=docker/dockerfile:1.7
# The OpenAI-compatible front door. Build from the repository's root, for both platforms:
#   docker buildx build --platform linux/amd64,linux/arm64 -f deploy/docker/openai_gateway.Dockerfile -t pointsman-gateway .
ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /src
RUN python -m venv /opt/pointsman
COPY constraints.txt pyproject.toml README.md LICENSE NOTICE ./
COPY pointsman pointsman
COPY apps apps
RUN /opt/pointsman/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[gateway]'

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="pointsman-gateway" org.opencontainers.image.licenses="Apache-2.0"
# A number, so that runAsNonRoot can be checked without looking into the image.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin pointsman
COPY --from=build /opt/pointsman /opt/pointsman
COPY LICENSE NOTICE /usr/share/doc/pointsman/
USER 10001:10001
# Nothing is written: run it with a read-only root file system.
ENV PATH=/opt/pointsman/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 GATEWAY_LISTEN=0.0.0.0:8088
EXPOSE 8088
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8088/healthz', timeout=2)"]
ENTRYPOINT ["python", "-m", "apps.openai_gateway"]
