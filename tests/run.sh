#!/usr/bin/env bash
# Installs what is missing and runs everything.
#
#   bash tests/run.sh             all checks and tests, as continuous integration runs them
#   bash tests/run.sh --full      the same with the large counts, the dependency audit and the fuzz targets
#   bash tests/run.sh --clients   only installs the official clients that tests/sdk.rs and tests/import drive
#
# Debian and its kin (apt-get), and macOS (Homebrew). Nothing is read from the terminal.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1-}
case "$mode" in
'' | --full | --clients) ;;
*)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

export CARGO_TERM_COLOR=never NO_COLOR=1 RUST_BACKTRACE=1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
clients=target/clients
started=$SECONDS

# section TITLE COMMAND…: runs a command under a title and prints how long it took.
section() {
    local from=$SECONDS
    title=$1
    shift
    printf '\n== %s\n' "$title"
    "$@"
    printf -- '-- %s: %d s\n' "$title" "$((SECONDS - from))"
    title=
}

# What failed is the last thing that is said.
title=
trap 'code=$?; [ -z "$title" ] || printf "\nFAILED: %s, with exit code %d, after %d s in all.\n" "$title" "$code" "$((SECONDS - started))"' EXIT

have() { command -v "$1" >/dev/null 2>&1; }

# install DEBIAN-PACKAGES BREW-PACKAGES
install() {
    if have apt-get; then
        local root=()
        [ "$(id -u)" = 0 ] || root=(sudo)
        "${root[@]}" apt-get update -qq
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends $1 </dev/null
    elif have brew; then
        # shellcheck disable=SC2086
        brew install --quiet $2 </dev/null
    else
        echo "Install these and run again: $1" >&2
        exit 1
    fi
}

# some PATTERN: whether a file's name is like that.
some() { compgen -G "$1" >/dev/null; }

# The tests start servers of their own; those that Debian's packages have just started are stopped again.
redis() {
    install redis-server redis
    if have systemctl; then systemctl stop redis-server 2>/dev/null || true; fi
}

postgres() {
    install postgresql postgresql@15
    if have pg_lsclusters; then
        pg_lsclusters --no-header | while read -r version name _; do
            pg_ctlcluster "$version" "$name" stop || true
        done
    fi
}

# As for PostgreSQL.
pooler() {
    install pgbouncer pgbouncer
    if have systemctl; then systemctl stop pgbouncer 2>/dev/null || true; fi
}

tools() {
    have cc || have gcc || have clang || install build-essential gcc
    have curl || install 'curl ca-certificates' curl
    python3 -c 'import venv, ensurepip' 2>/dev/null || install 'python3 python3-venv' python3
    have initdb || some '/usr/lib/postgresql/*/bin/initdb' || some '/opt/homebrew/opt/postgresql@*/bin/initdb' ||
        some '/usr/local/opt/postgresql@*/bin/initdb' || postgres
    have pgbouncer || [ -x /usr/sbin/pgbouncer ] || pooler
    have node && have npm || install 'nodejs npm' node
    have redis-server || redis
    have openssl || install openssl openssl
    have pgrep || install procps proctools
    if [ "$(uname)" = Linux ]; then
        have valgrind && have strace || install 'valgrind strace' ''
    fi
    if ! have cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH=$HOME/.cargo/bin:$PATH
    elif ! have cargo; then
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
        PATH=$HOME/.cargo/bin:$PATH
    fi
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
    cargo --version
    python3 --version
    echo "node $(node --version), npm $(npm --version 2>/dev/null)"
}

# python_packages ENVIRONMENT LIST
python_packages() {
    local list=tests/clients/python/$2 environment=$clients/$1
    if ! cmp -s "$list" "$environment/$2"; then
        rm -rf "$environment"
        python3 -m venv "$environment"
        "$environment/bin/pip" install --quiet --requirement "$list"
        cp "$list" "$environment/"
    fi
}

# Exact versions, each installed again only when its list changes.
official_clients() {
    local node=tests/clients/node/package.json
    python_packages python requirements.txt
    python_packages memories memories.txt
    if ! cmp -s "$node" "$clients/node/installed.json"; then
        rm -rf "$clients/node"
        mkdir -p "$clients/node"
        cp "$node" "$clients/node/package.json"
        npm install --prefix "$clients/node" --no-package-lock --no-audit --no-fund --silent
        cp "$node" "$clients/node/installed.json"
    fi
    "$clients/python/bin/python" -c 'import openai; print("openai for Python", openai.VERSION)'
    (cd "$clients/node" && node -e 'import("openai/version").then((at) => console.log("openai for Node", at.VERSION))')
}

# The tests of the official clients are ignored by default, since a machine with only Rust has none.
conversations() {
    cargo test --all-features --test sdk --test import -- --ignored
}

kills() {
    SESSION_MEMORY_KILLS=200 cargo test --all-features --test kill -- --nocapture
    SESSION_MEMORY_IMPORT_KILLS=100 cargo test --all-features --test import killed -- --nocapture
}

# 20 Cluster failovers, 10 Sentinel failovers, and so on; one after the other, or they wait for each other.
redis_faults() {
    SESSION_MEMORY_FAULTS=5 cargo test --all-features --test store_redis -- --nocapture --test-threads=2 \
        cluster::a cluster::s cluster::w failover:: faults:: network:: sentinel:: --skip _a_cluster:: --skip by_sentinels
}

# Replicas that take turns, and caches in front of stores: at least so many turns on every store.
turns() {
    SESSION_MEMORY_TURNS=2000 cargo test --all-features --test stores -- --nocapture replicas:: cache::
}

# Every byte of what is stored encrypted, each of its bits flipped and all of them.
flips() {
    SESSION_MEMORY_FLIPS=9 cargo test --all-features --test store_wrappers -- --nocapture flipped every_byte
}

# Does the benchmark still run, and show that a cached load is one round trip?
store_benchmark() {
    cargo bench --features postgres,redis,sqlite --bench store -- --quick
}

# Three replicas, 8 clients with 200 operations each, faults on; and the stores that are wrong on purpose.
histories() {
    SESSION_MEMORY_HISTORIES=20 cargo test --all-features --test linearity -- --nocapture
}

# Calls that are dropped and sessions that are deleted, on each store.
storms() {
    SESSION_MEMORY_CANCELLATIONS=100000 SESSION_MEMORY_DELETIONS=10000 \
        cargo test --all-features --test storm -- --nocapture
}

# 50 deaths and freezes of the server, 10 failovers, a full disk; then what calls cost on ten million turns.
postgres_faults() {
    SESSION_MEMORY_POSTGRES_FAULTS=50 cargo test --all-features --test store_postgres -- --nocapture --test-threads=2 \
        --include-ignored deaths:: disk:: faults:: standby::
    SESSION_MEMORY_TABLE_TURNS=10000000 cargo test --all-features --test store_postgres -- --nocapture scale::
}

# Five minutes of everything at once: does its memory grow?
soak() {
    SESSION_MEMORY_SOAK_MINUTES=5 cargo test --all-features --test soak -- --ignored --nocapture
}

# The library with one feature at a time: what one forgets to ask for, another may bring along.
features() {
    local feature
    for feature in cookies compression encrypt metrics postgres redis sqlite testing zstd; do
        cargo check --quiet --features "$feature"
    done
}

audit() {
    have cargo-deny || cargo install --locked cargo-deny
    # Advisories are looked up on the network, so they are a command of their own: cargo deny check advisories
    cargo deny check bans licenses sources
}

fuzz() {
    have cargo-fuzz || cargo install --locked cargo-fuzz
    rustup toolchain install nightly --profile minimal --no-self-update
    local target
    for target in $(cargo +nightly fuzz list); do
        cargo +nightly fuzz run "$target" -- -max_total_time=60 -timeout=10
    done
}

if [ "$mode" = --clients ]; then
    section 'Tools' tools
    section 'Official clients' official_clients
    exit
fi

section 'Tools' tools
section 'Official clients' official_clients
section 'Format' cargo fmt --all --check
section 'Lints' cargo clippy --all-targets --all-features -- -D warnings
section 'Lints, default features' cargo clippy -- -D warnings
section 'Documentation' env RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --all-features
section 'Fuzz targets compile' cargo check --quiet --manifest-path fuzz/Cargo.toml --target-dir target/fuzz --bins
section 'Tests, default features' cargo test
# Unit, integration and documentation tests, and the examples are built. What passes says nothing but its name, so that
# what fails is found.
section 'Tests, all features' cargo test --all-features
section 'Conversations of the official clients' conversations
section 'Costs, where their figures were recorded' bash tests/costs.sh --recorded
if [ "$mode" = --full ]; then
    section 'Deaths, 200 of each kind' kills
    section 'Faults of Redis and its network' redis_faults
    section 'Replicas, 2,000 turns of each kind' turns
    section 'Flipped bytes under encryption' flips
    section 'Benchmark of the stores, a small run' store_benchmark
    section 'Histories, 20 on each store' histories
    section 'Storms, 100,000 dropped calls and 10,000 deletions on each store' storms
    section 'Faults of PostgreSQL and its network, and ten million turns' postgres_faults
    section 'Five minutes of load in flat memory' soak
    section 'Each feature by itself' features
    section 'Audit of the dependencies' audit
    section 'Fuzz targets, 60 seconds each' fuzz
fi
printf '\nAll of it passed in %d s.\n' "$((SECONDS - started))"
