#!/bin/sh
# The release program for another processor, on Debian.
#     cross.sh prepare ARCH    installs what that takes; as root
#     cross.sh build ARCH      builds it
#     cross.sh program ARCH    tells where it is then
# ARCH is amd64 or arm64.
set -eu
case "$2" in
    amd64) target=x86_64-unknown-linux-gnu tools=x86-64-linux-gnu prefix=x86_64-linux-gnu ;;
    arm64) target=aarch64-unknown-linux-gnu tools=aarch64-linux-gnu prefix=aarch64-linux-gnu ;;
    *) echo "$2 is no architecture; write amd64 or arm64" >&2; exit 2 ;;
esac
own=$(dpkg --print-architecture)
case "$1" in
    prepare)
        [ "$own" = "$2" ] && exit 0
        apt-get -qq update >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
            "gcc-$tools" "libc6-dev-$2-cross" >/dev/null
        rustup target add "$target"
        ;;
    build)
        if [ "$own" != "$2" ]; then
            # C comes with some crates; the cc crate finds its compiler by the target's name.
            name=$(echo "$target" | tr a-z- A-Z_)
            export "CARGO_TARGET_${name}_LINKER=$prefix-gcc"
        fi
        cargo build --release --locked --bin sanpath --target "$target"
        ;;
    program) echo "target/$target/release/sanpath" ;;
    *) echo "$1 is none of prepare, build and program" >&2; exit 2 ;;
esac
