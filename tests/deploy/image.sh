#!/bin/bash
# Makes the image of a program by buildah, prints its size, and runs the controller in it as deploy/controller.yaml does: another user, no capability, the
# root read-only, a config, its two folders.
#     image.sh PROGRAM ARCH [ssh]
# The image of another processor's program is made, and nothing of it is run but, by an emulator, its --version. With `ssh` it is the one for EqualLogic, on a
# Debian made here, and the controller in it must come as far as the refusal of an address where nobody is.
set -euo pipefail
program=$(realpath "$1")
arch=$2
kind=${3:-plain}
own=$(dpkg --print-architecture)
deploy=$(realpath "$(dirname "$0")/../../deploy")
[ "$(id -u)" = 0 ] || { echo "images are made and started as root" >&2; exit 1; }
ensure_tool() {
    command -v "$1" >/dev/null && return
    command -v apt-get >/dev/null || { echo "$1 is needed; install the package of that name" >&2; exit 1; }
    apt-get -qq update >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$1" >/dev/null
}
ensure_tool buildah

work=$(mktemp -d)
controller=
images() { STORAGE_DRIVER=vfs buildah --root "$work/images" --runroot "$work/run" "$@"; }
clean() {
    [ -z "$controller" ] || kill "$controller" 2>/dev/null || true
    wait
    umount -q "$work"/root/{csi,run/sanpath,etc/sanpath,dev/null} 2>/dev/null || true
    umount -q "$work/root" 2>/dev/null || true
    images umount --all >/dev/null 2>&1 || true
    rm -rf --one-file-system "$work"
}
trap clean EXIT

mkdir "$work/context" "$work/root" "$work/config"
chmod 0755 "$work"
cp "$program" "$work/context/sanpath"
recipe=Containerfile.binary
if [ "$kind" = ssh ]; then
    recipe=Containerfile.ssh
    ensure_tool mmdebstrap
    mmdebstrap --quiet --variant=minbase --architectures="$arch" trixie "$work/base.tar"
    printf 'FROM scratch\nADD base.tar /\n' > "$work/Containerfile"
    images bud --quiet --arch "$arch" --file "$work/Containerfile" --tag base:test "$work" >/dev/null
fi
images bud --quiet --isolation chroot --arch "$arch" --build-arg BASE=base:test --file "$deploy/$recipe" --tag sanpath:test "$work/context" >/dev/null
echo "image sanpath ($recipe) for $arch: $(images images --noheading --format '{{.Size}}' sanpath:test)"

container=$(images from --arch "$arch" sanpath:test)
inside=$(images mount "$container")
[ "$kind" = ssh ] || [ "$(find "$inside" -type f)" = "$inside/usr/local/bin/sanpath" ] || { echo "there is more in the image than the program:" >&2; find "$inside" >&2; exit 1; }
if [ "$arch" != "$own" ]; then
    # qemu calls processors as the kernel does.
    emulator=qemu-$(echo "$arch" | sed 's/arm64/aarch64/; s/amd64/x86_64/')
    command -v "$emulator" >/dev/null || { echo "not run: it is for $arch, and there is no $emulator"; exit 0; }
    told=$("$emulator" "$inside/usr/local/bin/sanpath" --version)
    echo "$told for $arch, by $emulator; the controller was not run"
    exit 0
fi
# What a runtime makes for its mounts, before the root is closed.
mkdir -p "$inside"/{csi,run/sanpath,etc/sanpath,dev}
[ -e "$inside/dev/null" ] || touch "$inside/dev/null"
mount --bind "$inside" "$work/root"
mount -o remount,bind,ro "$work/root"
for folder in csi run/sanpath; do
    mount -t tmpfs -o mode=0700,uid=65532,gid=65532 tmpfs "$work/root/$folder"
done
mount --bind /dev/null "$work/root/dev/null"
mount --bind "$work/config" "$work/root/etc/sanpath"
printf 'version: 1\npartitions:\n  here:\n    sanhost: 127.0.0.1:1\n' > "$work/config/config.yaml"
reason=127.0.0.1:1
if [ "$kind" = ssh ]; then
    printf '    blockstoragemanager: equallogic\n    sanCredentials: /etc/sanpath\n' >> "$work/config/config.yaml"
    chroot "$work/root" ssh-keygen -q -t ed25519 -N '' -f /etc/sanpath/ssh-privatekey
    printf 'grpadmin' > "$work/config/username"
    echo "[127.0.0.1]:1 $(cat "$work/config/ssh-privatekey.pub")" > "$work/config/known_hosts"
    chmod 0644 "$work/config/ssh-privatekey"
    reason='Connection refused'
else
    printf '    blockstoragemanager: linux\n' >> "$work/config/config.yaml"
fi

in_the_pod=(chroot --userspec=65532:65532 --groups= "$work/root" /usr/local/bin/sanpath)
"${in_the_pod[@]}" controller --endpoint=unix:///csi/csi.sock --config=/etc/sanpath/config.yaml 2> "$work/log" &
controller=$!
for _ in {1..100}; do
    [ -S "$work/root/csi/csi.sock" ] && "${in_the_pod[@]}" sanhosts 2>/dev/null | grep -q "$reason" && break
    kill -0 "$controller" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.3
done
"${in_the_pod[@]}" sanhosts | grep -q "$reason" || { echo "the controller does not answer" >&2; cat "$work/log" >&2; exit 1; }
status=/proc/$controller/status
grep -q '^Uid:\s65532\s65532\s65532\s65532' "$status" && grep -q '^CapEff:\s0*$' "$status" || { echo "it has rights" >&2; cat "$status" >&2; exit 1; }
if touch "$work/root/here" 2>/dev/null; then
    echo "its root can be written to" >&2
    exit 1
fi
echo "controller in it: user 65532, no capability, root read-only: it answers"
