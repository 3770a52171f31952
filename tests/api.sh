#!/usr/bin/env bash
# Compares the public API of the library, all features on, with its listing, tests/api/library.txt.
#
#   bash tests/api.sh            fails with what is new (+) and what is gone (-)
#   bash tests/api.sh --update   records the API in the listing
#   bash tests/api.sh --semver   lists what breaks users of the commit before; needs cargo-semver-checks
#
# The commit before is HEAD when the work tree has changes, and HEAD^ when it has none. API_BASE names another commit.
set -euo pipefail
cd "$(dirname "$0")/.."

listing=tests/api/library.txt
# Its rustdoc is the one that tests/api/Cargo.toml reads. Another may also write the same API in other words.
rust=1.95

# list FILE
list() {
    RUSTDOC=$PWD/tests/api/rustdoc.sh cargo rustdoc --quiet --lib --all-features -- \
        -Z unstable-options --output-format json
    cargo run --quiet --locked --manifest-path tests/api/Cargo.toml --target-dir target/api -- \
        target/doc/tower_session_memory.json >"$1"
}

compare() {
    local found=target/api/library.txt
    mkdir -p target/api
    list "$found"
    if cmp -s "$listing" "$found"; then
        echo "The public API is the listed one, $(wc -l <"$found") lines."
    else
        diff --unified=0 "$listing" "$found" | sed '1,2d;/^@@/d' || true
        echo "The public API is not the one of $listing. If that is meant: bash tests/api.sh --update" >&2
        exit 1
    fi
}

# Breaks are listed and do not fail: nothing has been released, and the listing shows each of them in the commit.
semver() {
    local base=${API_BASE-} code=0
    [ -n "$base" ] || if [ -n "$(git status --porcelain)" ]; then base=HEAD; else base=HEAD^; fi
    if ! git rev-parse --verify --quiet "$base^{commit}" >/dev/null; then
        echo "There is no commit $base to compare with."
        return
    fi
    cargo semver-checks --baseline-rev "$base" --release-type minor --all-features || code=$?
    case $code in
    0) ;;
    100) echo 'These changes break users of the commit before.' ;;
    *) exit "$code" ;;
    esac
}

case "${1-}" in
'' | --update)
    if [[ $(rustc --version) != "rustc $rust."* ]]; then
        echo "The public API is not compared: $listing is of Rust $rust. For another, see tests/api/Cargo.toml." >&2
        # Continuous integration is to compare it.
        [ -z "${CI-}" ] || exit 1
    elif [ -z "${1-}" ]; then
        compare
    else
        list "$listing"
    fi
    ;;
--semver) semver ;;
*)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
