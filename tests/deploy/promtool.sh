#!/bin/sh
# Puts Debian's promtool into a folder, without installing the server that it comes with:
#     promtool.sh FOLDER
# Afterwards FOLDER/usr/bin holds it.
set -eu
folder=$1
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
    echo "promtool is taken from the package prometheus of a Debian-like system, and this is none" >&2
    exit 1
}
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"
fetch() { apt-get -qq -o APT::Sandbox::User=root download prometheus; }
if ! fetch 2>/dev/null; then
    [ "$(id -u)" = 0 ] || {
        echo "apt-get cannot fetch the package prometheus, which has promtool; as root: apt-get update" >&2
        exit 1
    }
    apt-get -qq update >/dev/null
    fetch
fi
dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
rm prometheus_*.deb
