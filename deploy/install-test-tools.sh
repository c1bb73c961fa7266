#!/bin/sh
# Installs the programs the tests run against: a browser, a second Redis (also for TLS), and openssl for its certificate.
# Where it may not, it names each one that is missing and what needs it; those tests then fail, they are not skipped.
set -eu
missing=""
for pair in chromium:chromium redis-server:redis-server openssl:openssl; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing for the tests:$missing …"
    apt-get update -qq || true
    for package in $missing; do
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
            echo "Could not install $package: the tests that need it will fail." >&2
    done
else
    echo "Not installed, and this user may not install:$missing. The tests that need them will fail." >&2
fi
