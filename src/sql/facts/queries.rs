//! The catalog queries whose rows [`FactsBuilder`](super::FactsBuilder) takes.
//!
//! `pg_depend` records nothing about built-in functions (they are pinned), so the stored trees are searched for the
//! oids of functions. The volatility is the user's label: a function declared STABLE that writes gets past this.

/// Functions callable from SQL, one row per schema and name: `schema text, name text, volatility text, field_style
/// bool`. The worst volatility over the overloads, the support functions of an aggregate, and the defaults of
/// arguments.
pub const FUNCTIONS: &str = r"
WITH support AS (
  SELECT a.aggfnoid::oid AS fn, max(f.provolatile::text) AS volatility
  FROM pg_catalog.pg_aggregate a
  CROSS JOIN LATERAL unnest(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
                                  a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]::oid[]) part(fn)
  JOIN pg_catalog.pg_proc f ON f.oid = part.fn
  GROUP BY 1),
defaults AS (
  SELECT p.oid AS fn, max(f.provolatile::text) AS volatility
  FROM pg_catalog.pg_proc p
  CROSS JOIN LATERAL regexp_matches(p.proargdefaults::text,
                                    ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') called(fn)
  JOIN pg_catalog.pg_proc f ON f.oid = called.fn[1]::oid
  WHERE p.proargdefaults IS NOT NULL
  GROUP BY 1)
SELECT n.nspname::text, p.proname::text,
       max(greatest(p.provolatile::text, support.volatility, defaults.volatility)),
       coalesce(bool_or(p.pronargs = 1 AND t.typtype IN ('c', 'p')), false)
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
LEFT JOIN support ON support.fn = p.oid
LEFT JOIN defaults ON defaults.fn = p.oid
LEFT JOIN pg_catalog.pg_type t ON t.oid = p.proargtypes[0]
WHERE p.prorettype <> ALL (ARRAY['trigger', 'event_trigger', 'internal', 'language_handler', 'fdw_handler',
                                 'index_am_handler', 'table_am_handler', 'tsm_handler']::regtype[])
  AND p.proname !~ '^binary_upgrade_'
GROUP BY 1, 2";

/// Operators whose function is volatile: `name text`.
pub const OPERATORS: &str = "
SELECT DISTINCT o.oprname::text
FROM pg_catalog.pg_operator o
JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
WHERE p.provolatile = 'v'";

/// Types that a volatile function casts from or to, reads, writes or checks: `schema text, name text`.
pub const TYPES: &str = r"
WITH harmful(oid) AS (
  SELECT unnest(ARRAY[c.castsource, c.casttarget])
  FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc
  WHERE p.provolatile = 'v'
  UNION SELECT t.oid
  FROM pg_catalog.pg_type t
  JOIN pg_catalog.pg_proc p ON p.oid IN (t.typinput, t.typoutput, t.typreceive, t.typsend)
  WHERE p.provolatile = 'v' AND t.typtype <> 'p'
  UNION SELECT k.contypid
  FROM pg_catalog.pg_constraint k
  CROSS JOIN LATERAL regexp_matches(k.conbin::text, ':(?:funcid|opfuncid) (\d+)', 'g') called(fn)
  JOIN pg_catalog.pg_proc p ON p.oid = called.fn[1]::oid
  WHERE k.contypid <> 0 AND p.provolatile = 'v')
SELECT n.nspname::text, t.typname::text
FROM harmful
JOIN pg_catalog.pg_type t USING (oid)
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace";

/// Relations that a standby cannot give, or gives with another meaning, through views, inheritance, partitions and
/// row-security policies: `schema text, name text, why text`.
///
/// `$1 name[]` is [`CatalogFacts::harmless_functions`](super::CatalogFacts::harmless_functions).
pub const RELATIONS: &str = r"
WITH RECURSIVE
harmful AS MATERIALIZED (
  SELECT p.oid, CASE p.provolatile WHEN 'v' THEN 'volatile' ELSE 'nodelocal' END AS kind
  FROM pg_catalog.pg_proc p
  WHERE (p.provolatile = 'v'
         AND NOT (p.proname = ANY ($1)
                  AND (p.pronamespace = 'pg_catalog'::regnamespace
                       OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                                  WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid
                                    AND d.deptype = 'e'))))
     OR (p.pronamespace = 'pg_catalog'::regnamespace AND p.provolatile = 's'
         AND p.proname ~ ('^(pg_stat_get_|pg_get_replication_slots|pg_cursor$|pg_prepared_statement$|'
                          'pg_show_all_settings|pg_listening_channels|inet_|pg_backend_pid|pg_postmaster_start|'
                          'pg_conf_load|pg_(current_(xact|snapshot))|txid_current|pg_config$|pg_available_ext|'
                          'pg_timezone)'))
  UNION
  SELECT a.aggfnoid, 'volatile'
  FROM pg_catalog.pg_aggregate a
  JOIN pg_catalog.pg_proc p ON p.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
                                         a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
  WHERE p.provolatile = 'v'),
tree(rel, expr) AS MATERIALIZED (
  SELECT r.ev_class, r.ev_action::text
  FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
  WHERE r.ev_type = '1' AND c.relkind = 'v'
  UNION ALL
  SELECT polrelid, polqual::text FROM pg_catalog.pg_policy WHERE polqual IS NOT NULL AND polcmd IN ('r', '*')),
base(rel, why) AS (
  SELECT oid, CASE relkind WHEN 'f' THEN 'foreign' WHEN 'S' THEN 'sequence' ELSE 'unlogged' END
  FROM pg_catalog.pg_class
  WHERE relkind IN ('f', 'S') OR (relkind IN ('r', 'p', 'm') AND relpersistence = 'u')
  UNION
  SELECT t.rel, h.kind || ':' || p.proname
  FROM tree t
  CROSS JOIN LATERAL regexp_matches(t.expr, ':(?:funcid|aggfnoid|winfnoid) (\d+)', 'g') called(fn)
  JOIN harmful h ON h.oid = called.fn[1]::oid
  JOIN pg_catalog.pg_proc p ON p.oid = h.oid
  UNION
  SELECT t.rel, 'operator:' || o.oprname
  FROM tree t
  CROSS JOIN LATERAL regexp_matches(t.expr, ':opno (\d+)', 'g') used(op)
  JOIN pg_catalog.pg_operator o ON o.oid = used.op[1]::oid
  JOIN harmful h ON h.oid = o.oprcode
  UNION
  SELECT rel, 'row_lock' FROM tree WHERE expr LIKE '%:rowMarks ({%'),
edge(child, parent) AS (
  SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits
  UNION
  SELECT used.rel[1]::oid, t.rel
  FROM tree t CROSS JOIN LATERAL regexp_matches(t.expr, ':relid (\d+)', 'g') used(rel)
  WHERE used.rel[1] <> '0' AND used.rel[1]::oid <> t.rel),
bad(rel, why, depth) AS (
  SELECT rel, why, 0 FROM base
  UNION
  SELECT e.parent, b.why, b.depth + 1 FROM bad b JOIN edge e ON e.child = b.rel WHERE b.depth < 32)
SELECT n.nspname::text, c.relname::text, string_agg(DISTINCT bad.why, ', ' ORDER BY bad.why)
FROM bad
JOIN pg_catalog.pg_class c ON c.oid = bad.rel
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't'
GROUP BY 1, 2";

/// Functions of users' with their source, up to 1 MiB: `oid oid, name text, language text, source text`.
pub const CODE: &str = "
SELECT p.oid, p.proname::text, l.lanname::text, CASE WHEN octet_length(p.prosrc) <= 1048576 THEN p.prosrc END
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.pronamespace <> ALL (ARRAY['pg_catalog', 'information_schema']::regnamespace[])
  AND l.lanname NOT IN ('c', 'internal')";

/// Which code runs which: `used_kind text, used_oid oid, used_name text, user_kind text, user_oid oid, user_name text,
/// how text`, as [`UseRow`](super::UseRow) says.
///
/// What is not PostgreSQL's own is in `pg_depend`. Its own functions are not: those that change the session are
/// searched for in the stored trees.
pub const USES: &str = r"
WITH
owner(class, object, kind, oid, how) AS (
  SELECT 'pg_rewrite'::regclass, oid, 'r', ev_class, CASE ev_type WHEN '1' THEN 'same' ELSE 'write' END
  FROM pg_catalog.pg_rewrite
  UNION ALL
  SELECT 'pg_attrdef'::regclass, d.oid, 'r', d.adrelid, CASE a.attgenerated WHEN '' THEN 'insert' ELSE 'write' END
  FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
  UNION ALL
  SELECT 'pg_constraint'::regclass, oid, CASE conrelid WHEN 0 THEN 't' ELSE 'r' END,
         CASE conrelid WHEN 0 THEN contypid ELSE conrelid END, CASE conrelid WHEN 0 THEN 'always' ELSE 'write' END
  FROM pg_catalog.pg_constraint WHERE contype IN ('c', 'x', 't')
  UNION ALL
  SELECT 'pg_policy'::regclass, oid, 'r', polrelid, 'always' FROM pg_catalog.pg_policy
  UNION ALL
  SELECT 'pg_trigger'::regclass, oid, 'r', tgrelid, 'write'
  FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'
  UNION ALL
  SELECT 'pg_class'::regclass, indexrelid, 'r', indrelid, 'write' FROM pg_catalog.pg_index
  UNION ALL
  SELECT 'pg_class'::regclass, oid, 'r', oid, 'write' FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p', 'f')
  UNION ALL SELECT 'pg_proc'::regclass, oid, 'f', oid, 'always' FROM pg_catalog.pg_proc
  UNION ALL SELECT 'pg_operator'::regclass, oid, 'o', oid, 'always' FROM pg_catalog.pg_operator
  UNION ALL
  SELECT 'pg_type'::regclass, oid, 't', oid, 'always' FROM pg_catalog.pg_type WHERE typtype = 'd' OR typcategory = 'A'
  UNION ALL
  SELECT 'pg_cast'::regclass, c.oid, 't', unnest(ARRAY[c.castsource, c.casttarget]), 'always' FROM pg_catalog.pg_cast c
  UNION ALL
  SELECT 'pg_event_trigger'::regclass, oid, 'e', 0, 'always' FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D'),
tree(kind, oid, how, expr) AS (
  SELECT o.kind, o.oid, o.how, r.ev_action::text || r.ev_qual::text
  FROM pg_catalog.pg_rewrite r JOIN owner o ON o.class = 'pg_rewrite'::regclass AND o.object = r.oid
  WHERE r.ev_class >= 16384
  UNION ALL
  SELECT o.kind, o.oid, o.how, d.adbin::text
  FROM pg_catalog.pg_attrdef d JOIN owner o ON o.class = 'pg_attrdef'::regclass AND o.object = d.oid
  UNION ALL
  SELECT o.kind, o.oid, o.how, k.conbin::text
  FROM pg_catalog.pg_constraint k JOIN owner o ON o.class = 'pg_constraint'::regclass AND o.object = k.oid
  WHERE k.conbin IS NOT NULL
  UNION ALL
  SELECT 'r', polrelid, 'always', concat(polqual::text, polwithcheck::text) FROM pg_catalog.pg_policy
  UNION ALL
  SELECT 'r', tgrelid, 'write', tgqual::text FROM pg_catalog.pg_trigger WHERE tgqual IS NOT NULL
  UNION ALL
  SELECT 't', oid, 'always', typdefaultbin::text FROM pg_catalog.pg_type WHERE typdefaultbin IS NOT NULL
  UNION ALL
  SELECT 'f', p.oid, 'always', concat(p.proargdefaults::text, to_jsonb(p) ->> 'prosqlbody')
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  WHERE p.oid >= 16384 AND (p.proargdefaults IS NOT NULL OR l.lanname = 'sql' AND p.prosrc = '')),
stateful AS MATERIALIZED (
  SELECT ':(?:funcid|opfuncid) (' || string_agg(oid::text, '|') || ') ' AS pattern
  FROM pg_catalog.pg_proc
  WHERE pronamespace = 'pg_catalog'::regnamespace
    AND proname ~ ('^(nextval|setval|currval|lastval|set_config|setseed|pg_advisory_(lock|unlock).*|'
                   'pg_try_advisory_lock.*|pg_replication_origin_session_.*|.*_to_xml(_and_xmlschema)?|'
                   'ts_stat|ts_rewrite)$')),
uses(used_kind, used, user_kind, oid, how) AS (
  SELECT CASE d.refclassid WHEN 'pg_proc'::regclass THEN 'f' WHEN 'pg_type'::regclass THEN 't'
                           WHEN 'pg_operator'::regclass THEN 'o' ELSE 'r' END, d.refobjid, o.kind, o.oid, o.how
  FROM pg_catalog.pg_depend d
  JOIN owner o ON o.class = d.classid AND o.object = d.objid
  WHERE d.refobjid >= 16384 AND d.deptype IN ('n', 'a', 'i')
    AND (d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
         OR d.refclassid = 'pg_class'::regclass
            AND d.classid IN ('pg_rewrite'::regclass, 'pg_policy'::regclass, 'pg_proc'::regclass)
         OR d.refclassid = 'pg_type'::regclass
            AND EXISTS (SELECT FROM pg_catalog.pg_type t
                        WHERE t.oid = d.refobjid AND (t.typtype IN ('d', 'b') AND t.typrelid = 0)))
  UNION
  SELECT 'f', found.fn[1]::oid, t.kind, t.oid, t.how
  FROM stateful s
  JOIN tree t ON t.expr ~ s.pattern
  CROSS JOIN LATERAL regexp_matches(t.expr, s.pattern, 'g') found(fn)
  UNION
  SELECT 'f', 'pg_catalog.nextval(regclass)'::regprocedure, 'r', attrelid, 'insert'
  FROM pg_catalog.pg_attribute WHERE attidentity <> '' AND NOT attisdropped
  UNION
  SELECT 'r', conrelid, 'r', confrelid, 'cascade'
  FROM pg_catalog.pg_constraint WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
  UNION
  SELECT 'r', inhrelid, 'r', inhparent, 'same' FROM pg_catalog.pg_inherits),
object(kind, oid, name) AS (
  SELECT CASE WHEN l.lanname IN ('c', 'internal') AND p.prokind <> 'a' THEN 'b' ELSE 'f' END, p.oid, p.proname
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  UNION ALL SELECT 'r', oid, relname FROM pg_catalog.pg_class
  UNION ALL SELECT 't', oid, typname FROM pg_catalog.pg_type
  UNION ALL SELECT 'o', oid, oprname FROM pg_catalog.pg_operator
  UNION ALL SELECT 'e', 0, '')
SELECT used.kind, used.oid, used.name::text, usr.kind, usr.oid, usr.name::text, u.how
FROM uses u
JOIN object used ON used.oid = u.used AND (used.kind = u.used_kind OR used.kind = 'b' AND u.used_kind = 'f')
JOIN object usr ON usr.oid = u.oid AND (usr.kind = u.user_kind OR usr.kind = 'b' AND u.user_kind = 'f')
WHERE u.used <> u.oid";

/// One text that changes when an answer of the other queries may have changed: `change text`.
///
/// From the row versions of the catalogs; of `pg_class` only what matters, for VACUUM and TRUNCATE touch its rows too.
pub const CHANGE: &str = r"
SELECT concat_ws(' ',
  (SELECT sum(hashint8(oid::bigint << 32 | xmin::text::bigint)) FROM pg_catalog.pg_proc),
  (SELECT sum(hashint8(aggfnoid::oid::bigint << 32 | xmin::text::bigint)) FROM pg_catalog.pg_aggregate),
  (SELECT sum(hashint8(oid::bigint << 32 | xmin::text::bigint)) FROM pg_catalog.pg_operator),
  (SELECT sum(hashint8(oid::bigint << 32 | xmin::text::bigint)) FROM pg_catalog.pg_cast),
  (SELECT sum(hashint8(oid::bigint << 32 | xmin::text::bigint)) FROM pg_catalog.pg_namespace),
  (SELECT sum(hashint8(oid::bigint << 32 | xmin::text::bigint)) FROM pg_catalog.pg_policy),
  (SELECT sum(hashint8(oid::bigint << 32 | xmin::text::bigint)) FROM pg_catalog.pg_rewrite),
  (SELECT sum(hashint8(d.oid::bigint << 32 | hashtext(c.relname::text || d.xmin::text)))
   FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_class c ON c.oid = d.adrelid WHERE c.relpersistence <> 't'),
  (SELECT sum(hashint8(oid::bigint << 32 | xmin::text::bigint)) FROM pg_catalog.pg_event_trigger),
  (SELECT sum(hashint8(oid::bigint << 32 | xmin::text::bigint)) FROM pg_catalog.pg_trigger WHERE NOT tgisinternal),
  (SELECT sum(hashint8(d.objid::bigint << 32 | hashtext(c.relname::text)))
   FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.refobjid
   WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'
     AND d.refobjsubid > 0),
  (SELECT sum(hashint8(oid::bigint << 32 | xmin::text::bigint)) FROM pg_catalog.pg_type WHERE typrelid = 0 AND (typelem = 0 OR typtype = 'd')),
  (SELECT sum(hashint8(oid::bigint << 32 | xmin::text::bigint)) FROM pg_catalog.pg_constraint
   WHERE contypid <> 0 OR contype IN ('c', 'f')),
  (SELECT sum(hashint8(inhrelid::bigint << 32 | inhparent::bigint)) FROM pg_catalog.pg_inherits),
  (SELECT sum(hashint8(oid::bigint << 32 | hashtext(relname::text || relkind::text || relpersistence::text
                                                    || relnamespace::text)))
   FROM pg_catalog.pg_class
   WHERE relkind IN ('f', 'S', 'v') OR relpersistence = 'u' OR relrowsecurity OR relispartition OR relhassubclass
      OR relhastriggers OR relhasrules OR relchecks > 0))";
