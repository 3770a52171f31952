#!/bin/sh
# rustdoc with its unstable JSON. Only rustdoc sees the variable: build scripts that look at it would run again.
RUSTC_BOOTSTRAP=1 exec rustdoc "$@"
