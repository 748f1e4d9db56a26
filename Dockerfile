# The orchestrator as a container: compiled and installed in one stage, run as nobody special in the next, which has no
# compiler. Without ORCHESTRATOR_BUILD it is plain Python.

FROM python:3.11-slim AS install
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev
WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE ./
COPY orchestrator orchestrator
ENV ORCHESTRATOR_BUILD=compiled
RUN python -m venv /opt/orchestrator \
 && /opt/orchestrator/bin/pip install --no-cache-dir --disable-pip-version-check '.[amqp,kafka,otel,push,sql]'

FROM python:3.11-slim
# Registrations live in /var/lib/orchestrator: mount a volume there and name it with LOCATION.
RUN useradd --system --home-dir /srv/orchestrator --create-home orchestrator \
 && install -d -o orchestrator /var/lib/orchestrator
COPY --from=install /opt/orchestrator /opt/orchestrator
ENV PATH=/opt/orchestrator/bin:$PATH \
    PYTHONUNBUFFERED=1
WORKDIR /srv/orchestrator
COPY config/orchestrator.yml config/users.yaml config/
COPY flows flows
USER orchestrator
EXPOSE 5060/udp 5060/tcp 5061/tcp 8443/tcp
# SIGTERM drains: new calls get a 503, those in setup are finished.
STOPSIGNAL SIGTERM
ENTRYPOINT ["orchestrator"]
CMD ["run", "-c", "config/orchestrator.yml"]
