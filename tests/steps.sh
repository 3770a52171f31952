# Steps of fast.sh and run.sh, one after the other. The caller sets `steps`, each a line of three parts: `install`
# (downloads or installs) or `check`, the seconds that it takes on two cores, and the command.
# shellcheck shell=bash

export CARGO_TERM_COLOR=never NO_COLOR=1 RUST_BACKTRACE=1
# Most tests wait for a server or a time limit: twice as many at once as there are processors.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(getconf _NPROCESSORS_ONLN) * 2))}

# Seconds, from 100 on as minutes.
time_of() { if [ "$1" -lt 100 ]; then echo "$1 s"; else echo "$((($1 + 30) / 60)) min"; fi; }

run_steps() {
    local number=0 past=0 all=0 checked=0 from kind seconds command
    local step
    for step in "${steps[@]}"; do
        read -r kind seconds command <<<"$step"
        all=$((all + seconds))
    done
    started=$SECONDS spent=0
    trap 'report $?' EXIT
    for step in "${steps[@]}"; do
        read -r kind seconds command <<<"$step"
        number=$((number + 1))
        current=$command current_kind=$kind
        printf '\n== %d of %d: %s (about %s left)\n' "$number" "${#steps[@]}" "$command" "$(left)"
        from=$SECONDS
        # The words of a command are plain.
        # shellcheck disable=SC2086
        $command
        printf -- '-- %s\n' "$(time_of $((SECONDS - from)))"
        past=$((past + seconds))
        [ "$kind" = install ] || checked=$((checked + seconds)) spent=$((spent + SECONDS - from))
    done
    current=
    printf '\nAll of it passed in %s.\n' "$(time_of $((SECONDS - started)))"
}

# Time that is left: the recorded seconds, at this machine's speed once a minute of checks has shown it.
left() {
    if [ "$checked" -lt 60 ]; then time_of $((all - past)); else time_of $(((all - past) * spent / checked)); fi
}

# The last line says what failed, and whether it is a check.
report() {
    local code=$1
    [ "$code" != 0 ] && [ -n "${current-}" ] || return 0
    if [ "$current_kind" = install ]; then
        printf '\nNOT INSTALLED: a download or a package of "%s" failed, with exit code %d. No check has failed.\n' \
            "$current" "$code"
    else
        printf '\nFAILED: %s, with exit code %d, after %s.\n' "$current" "$code" "$(time_of $((SECONDS - started)))"
    fi
}
