#!/bin/sh
# Installs Debian's Chromium, only if there is none. Exits non-zero where that is not possible.
set -eu
command -v chromium >/dev/null && exit 0
command -v apt-get >/dev/null || exit 1
if [ "$(id -u)" = 0 ]; then sudo=""; else sudo="sudo -n"; fi
echo "installing Chromium for the browser tests"
$sudo apt-get -qq update
DEBIAN_FRONTEND=noninteractive $sudo apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core >/dev/null
