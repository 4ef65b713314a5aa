#!/usr/bin/env bash
# Installs what a build or a test run needs from Debian's packages; does nothing when all is there.
# Usage: scripts/deps.sh build | test | bench
set -euo pipefail

case "${1:-build}" in
  build) wanted=(cmake make gcc g++) commands=(cmake make gcc g++) ;;
  test)  wanted=(cmake make gcc g++ curl openssl procps util-linux pebble qemu-system-x86 busybox-static cpio python3 libc6-dev binutils
                 nghttp2-client python3-grpcio chromium)
         commands=(cmake make gcc g++ curl openssl kill unshare nsenter pebble qemu-system-x86_64 busybox cpio python3 strip h2load nghttp chromium) ;;
  bench) wanted=(cmake make gcc g++ wrk curl util-linux nginx-light haproxy openssl nghttp2-client) commands=(cmake make gcc g++ wrk curl nsenter nginx haproxy openssl h2load) ;;
  *) echo "usage: $0 build|test|bench" >&2; exit 2 ;;
esac

command -v cargo >/dev/null || { echo "Rust is missing: install a stable toolchain with rustup first" >&2; exit 1; }

missing=0
for command in "${commands[@]}"; do type -P "$command" >/dev/null || missing=1; done
# Debian's Python has its modules, whatever other one comes first in PATH; this one has no command to look for.
if [ "${1:-build}" = test ] && ! /usr/bin/python3 -c 'import grpc' 2>/dev/null; then missing=1; fi
# test-svm unpacks the kernel package, so apt's lists must know it.
if [ "${1:-build}" = test ] && ! apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1; then missing=1; fi
[ "$missing" = 1 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "missing packages (${wanted[*]}) and no sudo: install them as root" >&2; exit 1; }
  as_root=(sudo)
fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
