#!/bin/sh
# Makes .venv-bench: what the bot needs, in the versions it is locked to, and the queues it is compared with. Called by
# the Makefile. What does not install on this machine is named; who needs it is then left out.
set -eu
cd "$(dirname "$0")/../.."
LOCK=tests/benchmarks/requirements.lock
PIP="env PIP_DISABLE_PIP_VERSION_CHECK=1 .venv-bench/bin/pip install --quiet --require-hashes"

echo "Installing the contenders into .venv-bench …"
rm -rf .venv-bench
.venv/bin/python -m venv .venv-bench
if ! $PIP -r "$LOCK"; then
    echo "Not all of them can be installed together: one after the other …"
    $PIP -r requirements.lock
    ONE=.venv-bench/one.txt
    grep -n '^[^ #]' "$LOCK" | cut -d: -f1 | while read -r line; do
        # From its own line to the last of its hashes, the first that does not go on in the next.
        sed -n "$line,\$p" "$LOCK" | awk '{print} !/\\$/ {exit}' >"$ONE"
        $PIP --no-deps -r "$ONE" 2>/dev/null || echo "left out: $(head -n 1 "$ONE" | cut -d ' ' -f1)" >&2
    done
fi
