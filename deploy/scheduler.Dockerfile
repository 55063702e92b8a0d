# The scheduler's image. From a checkout: docker build -f deploy/scheduler.Dockerfile -t homeport-scheduler .
#
# Everything is installed by hash from requirements.lock in a first stage; the second has neither
# pip nor build tools. No package index is named, so one that pip in the base image is configured
# for is used.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/homeport
COPY requirements.lock ./
RUN pip --python /opt/homeport/bin/python install --no-cache-dir --disable-pip-version-check \
      --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY homeport homeport
COPY scheduler scheduler
COPY agent agent
COPY deploy/examples deploy/examples
RUN pip --python /opt/homeport/bin/python install --no-cache-dir --disable-pip-version-check \
      --no-deps --no-build-isolation . \
 && pip --python /opt/homeport/bin/python uninstall --quiet --yes \
      hatchling pathspec pluggy trove-classifiers
# The state's owner travels with the directory: a fresh named volume takes it over.
RUN mkdir -p /state/scheduler && chmod 700 /state/scheduler && chown -R 65532:65532 /state

FROM python:3.11.14-slim-bookworm
LABEL org.opencontainers.image.title="Homeport scheduler" \
      org.opencontainers.image.description="Keeps what you want to run, chooses a machine for every container, and tells the agents." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/homeport /opt/homeport
COPY --from=build --chown=65532:65532 /state /var/lib/homeport
ENV PATH=/opt/homeport/bin:$PATH \
    HOME=/var/lib/homeport \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, so that Kubernetes-like checks for "not root" can tell without a passwd file.
USER 65532:65532
VOLUME /var/lib/homeport/scheduler
# 7070: users and agents (gRPC). 7071: metrics, health, service discovery.
EXPOSE 7070 7071
# Every 30 s and without urllib: a Python that starts is most of what an idle scheduler costs.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
  CMD ["python", "-IS", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 7071, timeout=5); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "scheduler", "--state-dir", "/var/lib/homeport/scheduler"]
