#!/usr/bin/env bash
# Serves the demo configuration and says what to try. Stops with Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."

cat <<'TEXT'

  weir serves http://127.0.0.1:8080 from a pool of microVMs that is empty now. In another terminal, try:

    curl -i http://127.0.0.1:8080/                    a microVM is started for this request, and answers it
    curl -i http://127.0.0.1:8080/                    the same VM, warm
    curl --data-binary @Makefile http://127.0.0.1:8080/echo
    curl -i 'http://127.0.0.1:8080/crash?how=panic'   503: it ended two VMs, and is tried on no third; others go on
    curl -s http://127.0.0.1:9180/metrics | grep weir_vm
    after 10 idle seconds the VM is gone again

  Ctrl-C (or SIGTERM) drains and stops.

TEXT
exec target/release/weir serve -c examples/hello.toml
