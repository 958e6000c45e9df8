#!/bin/sh
# Installs a program that is published as a Python package into a folder of its own:
#     python-tool.sh FOLDER PACKAGE
# Afterwards FOLDER/bin holds the program. Used by the Makefile and by the lab's kit.
set -eu
folder=$1
package=$2
make_venv() { python3 -m venv --clear "$folder" >/dev/null 2>&1; }
if ! make_venv; then
    # Debian keeps what a venv needs in a package of its own.
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || {
        echo "python3 cannot make a virtual environment; on Debian, install python3-venv" >&2
        exit 1
    }
    DEBIAN_FRONTEND=noninteractive apt-get -qq update >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3-venv >/dev/null
    make_venv
fi
"$folder/bin/pip" --disable-pip-version-check install --quiet "$package"
