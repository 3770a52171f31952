#!/usr/bin/env bash
# Counts what requests cost (instructions, allocations, system calls, commands, round trips) and fails when a
# figure has grown. How it counts: benches/README.md.
#
#   bash tests/costs.sh              compares with benches/cost/figures.toml on the machine that recorded it,
#                                    and with the commit before on every other machine
#   bash tests/costs.sh --recorded   compares on the machine that recorded the figures, and elsewhere only says so
#   bash tests/costs.sh --update     records the figures and this machine in benches/cost/figures.toml
#   bash tests/costs.sh --machine    prints what identifies this machine
#
# The commit before is HEAD when the work tree has changes, and HEAD^ when it has none. COSTS_BASE names another
# commit, and is compared with on every machine.
#
# Linux only. Needs valgrind, strace, redis-server, PostgreSQL and git.
set -euo pipefail
cd "$(dirname "$0")/.."

figures=benches/cost/figures.toml
work=$PWD/target/costs

# What identifies a machine. Valgrind shows each program the same processor; its name is recorded all the same.
machine() {
    echo '[machine]'
    printf 'cpu = "%s %s"\n' "$(uname -m)" "$(processor)"
    printf 'libc = "%s"\n' "$(ldd --version 2>&1 | sed -n '1s/^ldd //p')"
    printf 'rustc = "%s"\n' "$(rustc --version)"
    printf 'valgrind = "%s"\n' "$(valgrind --version)"
}

processor() {
    awk -F '[[:space:]]*:[[:space:]]*' '
        $1 ~ /^(vendor_id|cpu family|model|model name)$/ && !seen[$1]++ { printf "%s%s", between, $2; between = ", " }
    ' /proc/cpuinfo
}

# The table of that name in the file of figures.
recorded() { sed -n '/^\[machine\]$/,/^$/p' "$figures" | sed '/^$/d'; }

# bench ARGUMENT…: flags that a machine sets for all builds would move the instructions.
bench() {
    env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_RUSTFLAGS CARGO_INCREMENTAL=0 \
        cargo bench --profile cost --features proxy --bench cost -- "$@"
}

# count COMMIT FILE: the figures of a commit, counted by its own benchmark on this machine.
count() {
    local commit=$1 file=$2
    echo "Counts the figures of $(git log -1 --format='%h %s' "$commit"), once for this commit."
    rm -rf "$work/tree"
    mkdir -p "$work/tree"
    # The present time for each file: cargo builds what is newer than its last build.
    git archive "$commit" | tar -x -m -C "$work/tree"
    (cd "$work/tree" && CARGO_TARGET_DIR=$work/build bench --update)
    { printf '# %s\n' "$commit" && machine && echo && sed -n '/^\[instructions\]$/,$p' "$work/tree/$figures"; } >"$file"
}

against_the_commit_before() {
    local base=${COSTS_BASE-} commit
    [ -n "$base" ] || if [ -n "$(git status --porcelain)" ]; then base=HEAD; else base=HEAD^; fi
    if ! commit=$(git rev-parse --verify --quiet "$base^{commit}"); then
        echo "There is no commit $base to compare with: nothing is counted."
        return
    fi
    local file=$work/base.toml
    if [ "$(head -n 6 "$file" 2>/dev/null)" != "$(printf '# %s\n' "$commit" && machine)" ]; then
        count "$commit" "$file"
    fi
    bench --against "$file"
}

if [ "$(uname)" != Linux ]; then
    echo 'Costs are not counted: valgrind and strace are for Linux.'
    exit
fi
case "${1-}" in
--machine) machine ;;
--update) bench --update ;;
'' | --recorded)
    if [ -z "${COSTS_BASE-}" ] && [ "$(machine)" = "$(recorded)" ]; then
        bench
    elif [ "${1-}" = --recorded ]; then
        echo "Costs are not counted: $figures was recorded on another machine (bash tests/costs.sh compares commits)."
    else
        against_the_commit_before
    fi
    ;;
*)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
