#!/bin/sh
# Looks for bytes that break a promise: FUZZ_SECONDS for each target, or for those that are named. What it finds of use
# goes to target/fuzz/corpus, and bytes that break one to tests/fuzz/artifacts.
set -eu
cd "$(dirname "$0")/../.."
PATH=$PWD/target/fuzz/tools/bin:$PATH
[ $# -gt 0 ] || set -- client server startup login node_login scanner config token history
for target; do
    mkdir -p "target/fuzz/corpus/$target"
    dictionary=
    case $target in
    scanner | client) dictionary=-dict=tests/fuzz/sql.dict ;;
    config) dictionary=-dict=tests/fuzz/config.dict ;;
    esac
    # One allocation of more than 64 MB would be out of proportion to anything that is sent here.
    cargo +nightly fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz "$target" \
        "target/fuzz/corpus/$target" "tests/fuzz/corpus/$target" -- -max_total_time="${FUZZ_SECONDS:-600}" \
        -max_len=4096 -timeout=10 -malloc_limit_mb=64 -print_final_stats=1 $dictionary
done
