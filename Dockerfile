# The environment and the workflow in one image, from the same lock as `make setup`.
#   docker build --tag threedrs .                             for CPUs
#   docker build --tag threedrs --build-arg TORCH=cuda .      for NVIDIA GPUs
# docs/CONTAINERS.md says how to run it.
FROM python:3.11.11-slim-bookworm

ARG TORCH=cpu
WORKDIR /threedrs
COPY . .
RUN TORCH=${TORCH} sh ./setup.sh && rm -rf /root/.cache /var/lib/apt/lists/*

ENV PATH=/threedrs/.venv/bin:$PATH
CMD ["snakemake", "--cores", "all", "all"]
