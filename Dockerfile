# syntax=docker/dockerfile:1
# The router alone; torch is its CPU build. Arguments of `docker run` are the router's flags:
#   docker build -t lodestar-router .
#   docker run --read-only --tmpfs /tmp -p 8001:8001 lodestar-router --engines http://a:8000
# Any uid may run it. Nothing is written but what --state-dir and HF_HOME name.
# PYTHON may name a base by digest, for a build that repeats to the byte.
ARG PYTHON=python:3.12.11-slim-bookworm

FROM ${PYTHON} AS build
# Where torch's CPU wheels come from, if not from pip's configuration.
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 SOURCE_DATE_EPOCH=1767225600
WORKDIR /src
RUN python -m venv /opt/lodestar
COPY constraints.txt setup.cfg setup.py README.md LICENSE ./
COPY lodestar_router lodestar_router
# Built without isolation, so that constraints.txt also pins the build tools.
RUN /opt/lodestar/bin/pip install -c constraints.txt setuptools \
    && /opt/lodestar/bin/pip install -c constraints.txt --no-build-isolation .
# Headers, tests and tools of torch are 200 MB that running it does not read; importing it
# looks for torch_shm_manager.
# Byte code is made here, because nothing can be written later, of all but what only the
# trainer reads; with hashes instead of times, so that the same sources give the same bytes.
WORKDIR /opt/lodestar
RUN rm -rf lib/python3*/site-packages/torch/include lib/python3*/site-packages/torch/test \
    && find lib/python3*/site-packages/torch/bin -type f ! -name torch_shm_manager -delete \
    && bin/pip uninstall -y setuptools pip \
    && bin/python -c 'import lodestar_router.cli, lodestar_router.learning.trainer' \
    && find . -name __pycache__ -prune -exec rm -rf {} + \
    && bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
       -x '/(torch|torchgen|functorch|sympy|networkx|mpmath)/' /opt/lodestar/lib

FROM ${PYTHON}
COPY --from=build /opt/lodestar /opt/lodestar
ENV PATH=/opt/lodestar/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    HF_HOME=/tmp/huggingface
# Group 0 and no name: the same rights for whatever uid a cluster gives it.
USER 65532:0
WORKDIR /tmp
EXPOSE 8001
STOPSIGNAL SIGTERM
# Of the default port; Kubernetes has probes of its own and ignores this.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"LODESTAR_ROUTER_PORT\", 8001)}/health', timeout=4)"]
ENTRYPOINT ["lodestar-router"]
