#!/bin/sh
# Builds target/pgo/causeway: the release binary, arranged by a profile of itself under pgbench's load
# (https://doc.rust-lang.org/rustc/profile-guided-optimization.html).
set -eu
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
place=$PWD/target/pgo
host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata

[ -x "$profdata" ] || rustup component add llvm-tools

# With a target of its own, build scripts and macros are not instrumented.
build() {
    RUSTFLAGS=$1 $cargo build --release --target "$host" --target-dir "$place/$2"
}

rm -rf "$place/raw"
mkdir -p "$place/raw"
build "-Cprofile-generate=$place/raw" train
LLVM_PROFILE_FILE=$place/raw/%p.profraw CAUSEWAY_BINARY=$place/train/$host/release/causeway \
    $cargo bench --bench compare -- --peers causeway --only select,logins,rows --clients 16 --secs 2 --rounds 1
"$profdata" merge -o "$place/profile" "$place/raw"
build "-Cprofile-use=$place/profile" use
cp "$place/use/$host/release/causeway" "$place/causeway"
echo "The binary is target/pgo/causeway."
