# The agent's image. From a checkout: docker build -f deploy/agent.Dockerfile -t homeport-agent .
#
# In a container the agent needs the engine's socket, the machine's process table (`pid: host`) and
# its control groups (/sys/fs/cgroup), because it checks "running" against the processes
# themselves and reads usage from cgroup files; docker-compose.yml shows all three. It is root
# inside: whoever may use the engine's socket is root outside anyway. Without the process table or the
# control groups it takes no exclusive movable task: its guard could not end one (docs/fencing.md).
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

FROM python:3.11.14-slim-bookworm
LABEL org.opencontainers.image.title="Homeport agent" \
      org.opencontainers.image.description="Runs one machine's containers as the scheduler says, and reports what they do." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/homeport /opt/homeport
ENV PATH=/opt/homeport/bin:$PATH \
    HOME=/var/lib/homeport \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/homeport
# 7072: metrics and health.
EXPOSE 7072
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
  CMD ["python", "-IS", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 7072, timeout=5); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "agent"]
