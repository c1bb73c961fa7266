#!/bin/sh
# Makes .venv with the locked dependencies and the checkout itself (editable). Called by the Makefile.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

if ! command -v "$PYTHON" >/dev/null; then
    echo "telequeue needs Python 3.11 or newer, and '$PYTHON' is not there. Set PYTHON=/path/to/python3." >&2
    exit 1
fi
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "telequeue needs Python 3.11 or newer; '$PYTHON' is $("$PYTHON" -V). Set PYTHON=/path/to/python3." >&2
    exit 1
fi
# Debian ships Python without ensurepip; its package python3-venv brings it.
if ! "$PYTHON" -c 'import ensurepip' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing python3-venv (this Python has no ensurepip) …"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
    else
        echo "'$PYTHON' cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
fi

echo "Installing the locked dependencies into .venv …"
# Another Python than last time means another venv.
if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    rm -rf .venv
    "$PYTHON" -m venv .venv
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1
.venv/bin/pip install --quiet --require-hashes -r requirements-dev.lock
.venv/bin/pip install --quiet --no-deps --no-build-isolation --editable .
