#!/usr/bin/env bash
# Runs weir-vmm's KVM tests as static binaries inside QEMU (TCG, emulated AMD SVM) on Debian's stock cloud kernel, so
# that hardware KVM semantics are checked on every machine, whatever its own /dev/kvm does. Needs neither /dev/kvm nor root.
# Usage: scripts/test-svm.sh [TEST_NAME_FILTER]     WEIR_SVM_NPT=0 tests shadow paging instead of nested paging.
set -euo pipefail
cd "$(dirname "$0")/.."

work=target/svm
target=x86_64-unknown-linux-gnu
npt=${WEIR_SVM_NPT:-1}
filter=${1:-}
mkdir -p "$work"

for tool in qemu-system-x86_64 busybox cpio; do
  command -v "$tool" >/dev/null || { echo "test-svm: $tool is missing; run 'make deps'" >&2; exit 1; }
done

kernel_package() {
  apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ {print $2; exit}'
}

# The kernel is only unpacked, never installed.
if [ ! -e "$work/kernel/done" ]; then
  rm -rf "$work/kernel" && mkdir -p "$work/kernel"
  package=$(kernel_package)
  [ -n "$package" ] || { echo "test-svm: no linux-image-cloud-amd64 in apt's lists; run 'make deps'" >&2; exit 1; }
  (cd "$work/kernel" && apt-get download "$package" 2>/dev/null && dpkg-deb -x "$package"_*.deb . && rm -f "$package"_*.deb)
  touch "$work/kernel/done"
fi
kernel=$(echo "$work"/kernel/boot/vmlinuz-*)
modules=$(echo "$work"/kernel/lib/modules/*/kernel)

# Static, so that the initramfs holds nothing but them and busybox.
RUSTFLAGS="-C target-feature=+crt-static" CARGO_TARGET_DIR=$work/build \
  cargo test -p weir-vmm --test 'kvm_*' --no-run --locked --target $target --message-format=json >"$work/build.json"
mapfile -t binaries < <(python3 - "$work/build.json" <<'PY'
import json, sys
for line in open(sys.argv[1]):
    message = json.loads(line)
    if message.get("reason") == "compiler-artifact" and message.get("executable") and "test" in message["target"]["kind"]:
        print(message["executable"])
PY
)
[ "${#binaries[@]}" -gt 0 ] || { echo "test-svm: no kvm_* test binary was built" >&2; exit 1; }

root=$work/root
rm -rf "$root" && mkdir -p "$root"/{bin,dev,proc,sys,tmp,etc,tests,modules}
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in sh cp mkdir mknod mount insmod poweroff switch_root; do ln -s busybox "$root/bin/$applet"; done
cp "$modules"/virt/lib/irqbypass.ko "$modules"/arch/x86/kvm/{kvm,kvm-amd}.ko "$modules"/drivers/net/tun.ko "$root/modules/"
echo 'root:x:0:0::/:/bin/sh' >"$root/etc/passwd"
for binary in "${binaries[@]}"; do
  strip -o "$root/tests/$(basename "$binary" | sed 's/-[0-9a-f]*$//')" "$binary"
done
# The launcher pivots its root away, which the initramfs itself does not allow: the tests run from a tmpfs.
cat >"$root/init" <<'INIT'
#!/bin/sh
mkdir /run && mount -t tmpfs none /run && cp -a /bin /etc /tests /modules /main /run/ && mkdir /run/dev /run/proc /run/sys /run/tmp
exec switch_root /run /main
INIT
cat >"$root/main" <<INIT
#!/bin/sh
mount -t devtmpfs none /dev; mkdir -p /dev/shm; mount -t proc none /proc; mount -t sysfs none /sys; mount -t tmpfs none /tmp
insmod /modules/irqbypass.ko && insmod /modules/kvm.ko && insmod /modules/kvm-amd.ko npt=$npt && insmod /modules/tun.ko
mount -t cgroup2 none /sys/fs/cgroup && echo "+cpu +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
[ -e /dev/net/tun ] || { mkdir -p /dev/net; mknod /dev/net/tun c 10 200; }
verdict=pass
for test in /tests/*; do
  echo "svm: running \$test"
  # A group of its own, as a service gets it. 0 is whoever writes it.
  group=/sys/fs/cgroup/\${test##*/}; mkdir \$group
  (echo 0 >\$group/cgroup.procs; exec \$test --test-threads=2 --color never $filter) || verdict=fail
done
echo "svm: verdict \$verdict"
poweroff -f
INIT
chmod +x "$root/init" "$root/main"
(cd "$root" && find . | cpio --quiet -o -H newc) | gzip -1 >"$work/initramfs.gz"

log=$work/console-npt$npt.log
# -cpu max,+svm under TCG: ring 0 and nested paging behave as the architecture says, unlike on a software KVM.
# thread=single: with a thread for each CPU, QEMU's own guest kernel was seen to hang now and then under npt=0.
timeout 600 qemu-system-x86_64 -machine q35 -accel tcg,thread=single -cpu max,+svm -smp 2 -m 1024 -nodefaults -no-user-config \
  -display none -no-reboot -serial stdio -kernel "$kernel" -initrd "$work/initramfs.gz" \
  -append "console=ttyS0 quiet panic=-1" </dev/null >"$log" 2>&1 || true
tr -d '\r' <"$log" | grep -E '^(svm:|test |running |failures:|---- |thread |error)|panicked|test result' || true

passed=$(tr -d '\r' <"$log" | awk '/^test result: ok\./ {sum += $4} END {print sum + 0}')
if tr -d '\r' <"$log" | grep -q '^svm: verdict pass$' && [ "$passed" -gt 0 ]; then
  echo "test-svm (npt=$npt): $passed tests passed on emulated SVM"
else
  echo "test-svm (npt=$npt): FAILED, the whole console is in $log" >&2
  exit 1
fi
