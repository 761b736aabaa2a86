#!/bin/sh
# Sets up everything into .venv; called by `make setup`.
#
# System packages are installed where this user may (root with apt-get), otherwise listed. torch
# comes as the CPU build on machines without an NVIDIA GPU: the registry's default build would
# pull gigabytes of CUDA libraries. TORCH=cpu or TORCH=cuda decides where this machine cannot tell, as
# where a container is built.
set -eu
PYTHON=${PYTHON:-python3}
BIN=.venv/bin

"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || {
    echo "setup: $PYTHON is not Python 3.11 or 3.12; name one with: make setup PYTHON=python3.11" >&2
    exit 1
}

# Snakemake starts scripts by the path of Python without quoting it.
case $PWD in
*[[:space:]\|\&\;\<\>\(\)\$\`\\\"\'\*\?\[\]\#\~\!\{\}]*)
    echo "setup: $PWD: holds a space or a sign of the shell, with which no script rule would start;" \
        "move the folder to a path of letters, digits, - and _, and call make setup there" >&2
    exit 1
    ;;
esac

have_library() { ldconfig -p 2>/dev/null | grep -q "$1"; }
wanted=""
command -v g++ >/dev/null || wanted="$wanted g++"                     # DeepSpeed compiles a helper
command -v java >/dev/null || wanted="$wanted default-jre-headless"   # METEOR
have_library 'libusb-1\.0\.so' || wanted="$wanted libusb-1.0-0"       # Open3D
have_library 'libGL\.so' || wanted="$wanted libgl1"                   # Open3D
have_library 'libEGL\.so' || wanted="$wanted libegl1"                 # Open3D
have_library 'libgomp\.so' || wanted="$wanted libgomp1"               # Open3D
have_library 'libX11\.so' || wanted="$wanted libx11-6"                # Open3D
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || wanted="$wanted python3-venv"
"$PYTHON" -c 'import pathlib, sysconfig, sys
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' || wanted="$wanted python3-dev"

if [ -n "$wanted" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing system packages:$wanted"
        apt-get update -qq
        # shellcheck disable=SC2086  # a list of package names
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $wanted >/dev/null
    else
        echo "setup: these system packages are missing; ask an administrator to install them:" >&2
        echo "    apt-get install$wanted" >&2
    fi
fi

"$PYTHON" -m venv .venv
torch=$(sed -n 's/^torch==/torch==/p' requirements.lock)
TORCH=${TORCH:-$(nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)}
if [ "$TORCH" = cuda ]; then
    echo "setup: for NVIDIA GPUs, installing $torch with CUDA"
    "$BIN/pip" install --quiet "$torch"
elif "$BIN/pip" install --quiet --dry-run --report - "$torch" | grep -q '"name": "nvidia-'; then
    echo "setup: without an NVIDIA GPU, installing the CPU build of $torch"
    "$BIN/pip" install --quiet uv
    # torch's own index has the CPU build. A mirror of PyPI in between may not lead there.
    "$BIN/uv" pip install --quiet --python "$BIN/python" --torch-backend cpu "$torch" || {
        echo "setup: the CPU build of $torch was not to be had from https://download.pytorch.org (see" \
            "above); let this machine reach it (HTTPS_PROXY), or call $BIN/pip install $torch for" \
            "the build with CUDA (some GB), or with the file of a CPU build, and make setup again" >&2
        exit 1
    }
else
    echo "setup: installing $torch"
    "$BIN/pip" install --quiet "$torch"
fi

echo "setup: installing the locked packages, in some two minutes"
grep -v -e '^torch==' -e '^deepspeed==' requirements.lock >.venv/requirements.txt
"$BIN/pip" install --quiet --no-deps -r .venv/requirements.txt
# DeepSpeed is a source package whose build imports torch; its kernels are compiled when first used.
DS_BUILD_OPS=0 "$BIN/pip" install --quiet --no-deps --no-build-isolation \
    "$(grep '^deepspeed==' requirements.lock)"
"$BIN/pip" install --quiet --no-deps --no-build-isolation --editable .
"$BIN/threedrs" --help >/dev/null
echo "setup: done"
