# One image, several commands: `run` (everything in one container), or one of `serve`, `worker`, `clock`.
FROM python:3.12-slim AS build
RUN pip install --no-cache-dir uv
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
COPY producers producers
COPY filters filters
COPY consumers consumers
COPY configs configs
RUN uv venv /opt/siftbell && uv pip install --no-cache --compile-bytecode --python /opt/siftbell/bin/python '.[all]'

FROM python:3.12-slim
COPY --from=build /opt/siftbell /opt/siftbell
COPY configs /etc/siftbell
RUN install -d -m 0700 -o 10001 -g 10001 /var/lib/siftbell
ENV PATH=/opt/siftbell/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SIFTBELL_CONFIG=/etc/siftbell \
    SIFTBELL_DATA=/var/lib/siftbell \
    SIFTBELL_HOST=0.0.0.0 \
    SIFTBELL_PORT=8025 \
    SIFTBELL_LOG_FORMAT=json
USER 10001:10001
VOLUME /var/lib/siftbell
EXPOSE 8025
STOPSIGNAL SIGTERM
# Workers and clocks answer here when SIFTBELL_METRICS_PORT is 8025, as docker-compose.yml has it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8025/livez', timeout=3)"]
ENTRYPOINT ["siftbell"]
CMD ["run"]
