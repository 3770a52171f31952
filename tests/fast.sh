#!/usr/bin/env bash
# Checks a change in a minute or two: format, lints, and the library's tests. Needs Rust and a C compiler only.
#
#   bash tests/fast.sh
#
# `bash tests/run.sh` is what must pass in the end.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/steps.sh
. tests/steps.sh

steps=(
    "check   2 cargo fmt --all --check"
    "check  40 cargo clippy --all-targets --all-features -- -D warnings"
    "check  40 cargo test --quiet --lib --test library --test hostile_json"
)
run_steps
