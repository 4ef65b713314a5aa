#!/usr/bin/env bash
# The test run for machines without cargo-nextest. With WEIR_SKIP_KVM=1 the kvm_* binaries are named as skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${WEIR_SKIP_KVM:-}" != 1 ]; then
  exec cargo test --workspace --locked --no-fail-fast
fi
mapfile -t targets < <(cargo metadata --no-deps --format-version 1 --locked | python3 -c '
import json, sys
for package in json.load(sys.stdin)["packages"]:
    for target in package["targets"]:
        if "test" in target["kind"]:
            print(package["name"], target["name"])')
cargo test --workspace --locked --no-fail-fast --lib --bins
skipped=0
for line in "${targets[@]}"; do
  read -r package name <<<"$line"
  case $name in
    kvm_*) echo "SKIPPED (WEIR_SKIP_KVM=1): $package $name"; skipped=$((skipped + 1)) ;;
    *) cargo test -p "$package" --test "$name" --locked --no-fail-fast ;;
  esac
done
echo "$skipped test binaries skipped, because WEIR_SKIP_KVM=1"
