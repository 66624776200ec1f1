#!/usr/bin/env bash
# What the consistency levels cost: pgbench -S and a mix of 90 reads and 10 writes in 100, each under every level,
# interleaved, against a running Causeway. Prints, for each: tps, p50 and p99 in ms, CPU seconds of the proxy per 10,000
# statements, the share of reads that replicas ran, and questions for the primary's position per 1,000 statements.
#
#   benches/levels.sh HOST PORT DATABASE PROXY_PID METRICS_URL [SECONDS] [ROUNDS]
#
# The user and password are libpq's (PGUSER, PGPASSWORD). The database has pgbench's tables: pgbench -i -s 10.
set -euo pipefail

host=$1 port=$2 database=$3 proxy=$4 metrics=$5 seconds=${6:-5} rounds=${7:-3}
levels=${LEVELS:-eventual session strong primary}
clients=${CLIENTS:-16}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/mixed.sql" <<'SQL'
\set aid random(1, 100000 * :scale)
\set writes random(1, 100)
\if :writes <= 10
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
\else
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
\endif
SQL

cpu() { awk '{print $14 + $15}' "/proc/$proxy/stat"; }
counter() { curl -fs "$metrics" | awk -v name="$1" 'index($1, name) == 1 {sum += $2} END {printf "%d", sum}'; }
replica_reads() { curl -fs "$metrics" | awk '/^causeway_routed_total/ && /reason="(read|read_only_transaction|hint_replica)"/ {sum += $2} END {printf "%d", sum}'; }
spilled_reads() { curl -fs "$metrics" | awk '/^causeway_routed_total/ && /reason="(no_replica|behind|rescue|level)"/ {sum += $2} END {printf "%d", sum}'; }

run() { # workload level
    local script=(-S)
    [ "$1" = mixed ] && script=(-n -f "$work/mixed.sql")
    rm -f "$work"/log.*
    local cpu0 replica0 spilled0 asked0
    cpu0=$(cpu) replica0=$(replica_reads) spilled0=$(spilled_reads) asked0=$(counter causeway_position_question_seconds_count)
    (cd "$work" && PGOPTIONS="-c causeway.consistency=$2" pgbench -n -h "$host" -p "$port" -c "$clients" -j 2 \
        -M "${PROTOCOL:-simple}" -T "$seconds" -l --log-prefix=log "${script[@]}" "$database" >"$work/out" 2>"$work/err") ||
        { cat "$work/err" >&2; exit 1; }
    local statements
    statements=$(cat "$work"/log.* | wc -l)
    cat "$work"/log.* | awk '{print $3}' | sort -n | awk -v w="$1" -v l="$2" -v s="$seconds" -v n="$statements" \
        -v cpu=$(($(cpu) - cpu0)) -v hz="$(getconf CLK_TCK)" -v replica=$(($(replica_reads) - replica0)) \
        -v spilled=$(($(spilled_reads) - spilled0)) -v asked=$(($(counter causeway_position_question_seconds_count) - asked0)) '
        {t[NR] = $1}
        END {printf "%s %s %.0f %.3f %.3f %.4f %.2f %.1f\n", w, l, n / s, t[int(NR * .5)] / 1000, t[int(NR * .99)] / 1000,
            cpu / hz / n * 10000, 100 * replica / (replica + spilled + 1e-9), 1000 * asked / n}' >>"$work/results"
}

for _ in $(seq "$rounds"); do
    for workload in select mixed; do
        for level in $levels; do run "$workload" "$level"; done
    done
done
printf '%-9s %-9s %9s %8s %8s %12s %10s %12s\n' workload level tps p50_ms p99_ms cpu_s/10k on_repl_% asked/1000
sort -s -k1,2 "$work/results" | awk '
    {key = $1 " " $2; if (!(key in n)) order[++keys] = key; n[key]++; for (i = 3; i <= 8; i++) sum[key, i] += $i}
    END {for (k = 1; k <= keys; k++) {key = order[k]; split(key, name, " ")
        printf "%-9s %-9s %9.0f %8.3f %8.3f %12.4f %10.2f %12.1f\n", name[1], name[2], sum[key, 3] / n[key], sum[key, 4] / n[key],
            sum[key, 5] / n[key], sum[key, 6] / n[key], sum[key, 7] / n[key], sum[key, 8] / n[key]}}'
