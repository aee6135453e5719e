# The service without a GPU. Build: docker build -t lip-sync .   Run: see compose.yaml and docs/api.md.
FROM python:3.12-slim-bookworm

ENV PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/data/cache \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /app
COPY requirements.txt requirements-service.txt ./
# With --build-arg TORCH_INDEX=URL, PyTorch's build for processors only, from the index that pytorch.org names: a
# fraction of the size; the pin in requirements.txt then counts as met.
ARG TORCH_INDEX=
RUN grep '^torch==' requirements.txt >torch.txt \
    && pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -r torch.txt \
    && pip install -r requirements-service.txt

COPY . .
RUN useradd --system --uid 10001 lipsync \
    && mkdir -p /data /engines \
    && chown lipsync /data /engines
USER 10001
VOLUME /data
EXPOSE 8000

HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=4)"]

ENTRYPOINT ["python", "app.py"]
CMD ["--mode", "api", "--host", "0.0.0.0", "--port", "8000", "--data-dir", "/data"]
