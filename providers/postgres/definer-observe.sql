-- Part 5: who uses the roles. Never a statement: it may hold anything.

-- The sessions of these roles, as the sweep of `kill` finds them. In one statement with it both read one snapshot of
-- the statistics. Answers {"<oid>": [{pid, address, application, since_ms, state, query_ms}, …]}, the p_most first ones.
CREATE OR REPLACE FUNCTION mayfly.sessions(p_oids oid[], p_most integer) RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  -- First the roles, one index lookup each: else the registry was read once for each session (measured: 80 ms at 10,000 roles).
  WITH asked AS MATERIALIZED (
    SELECT q.oid, h.joined, h.fenced_at FROM (SELECT DISTINCT unnest(p_oids) AS oid) q
    LEFT JOIN LATERAL (SELECT r.role_oid, r.joined, r.fenced_at FROM mayfly.handle r WHERE r.role_oid = q.oid OFFSET 0) h ON true
    WHERE h.role_oid IS NOT NULL OR NOT EXISTS (SELECT FROM pg_authid a WHERE a.oid = q.oid)
  )
  SELECT coalesce(jsonb_object_agg(f.role_oid, f.some), '{}') FROM (
    SELECT n.role_oid, jsonb_agg(jsonb_build_object(
        'total', n.total, 'pid', n.pid, 'address', coalesce(host(n.client_addr), 'local'),
        'application', coalesce(n.application_name, ''), 'state', n.state,
        'since_ms', extract(epoch FROM n.backend_start) * 1000, 'query_ms', extract(epoch FROM n.query_start) * 1000)
      ORDER BY n.place) AS some
    FROM (
      SELECT q.oid AS role_oid, s.pid, s.client_addr, s.application_name, s.state, s.backend_start, s.query_start,
             row_number() OVER w AS place, count(*) OVER (PARTITION BY q.oid) AS total
      FROM asked q
      JOIN pg_stat_get_activity(NULL) s
        ON s.backend_type = 'client backend'
       AND (s.usesysid = q.oid OR (s.usesysid = ANY (q.joined) AND s.backend_start < q.fenced_at))
      WINDOW w AS (PARTITION BY q.oid ORDER BY s.backend_start, s.pid)
    ) n WHERE n.place <= p_most GROUP BY n.role_oid
  ) f
$$;

-- Live use per ref, by its registered OID or the one that the broker remembers. Answers one element per ref, in order:
-- {"total": n, "sessions": [{address, application, since_ms, state, query_ms}, …]}.
CREATE OR REPLACE FUNCTION mayfly.observe(p_installation uuid, p_handles text[], p_oids oid[], p_most integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_oids oid[];
  v_seen jsonb;
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  v_oids := ARRAY(SELECT coalesce(h.role_oid, r.remembered)
    FROM ROWS FROM (unnest(p_handles), unnest(p_oids)) WITH ORDINALITY AS r (handle, remembered, ord)
    LEFT JOIN mayfly.handle h ON h.handle = r.handle ORDER BY r.ord);
  v_seen := mayfly.sessions(v_oids, least(p_most, 100));
  RETURN (SELECT coalesce(jsonb_agg(jsonb_build_object(
      'total', coalesce((f.some -> 0 ->> 'total')::integer, 0),
      'sessions', (SELECT coalesce(jsonb_agg(e.one - 'pid' - 'total' ORDER BY e.place), '[]')
                   FROM jsonb_array_elements(f.some) WITH ORDINALITY AS e (one, place))) ORDER BY q.ord), '[]')
    FROM unnest(v_oids) WITH ORDINALITY AS q (oid, ord) LEFT JOIN LATERAL (SELECT v_seen -> q.oid::text AS some) f ON true);
END
$$;

-- For the sweep behind a fence, which must tell one session from another: with pids, which stay in the broker.
CREATE OR REPLACE FUNCTION mayfly.seen(p_installation uuid, p_oids oid[], p_most integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  RETURN mayfly.sessions(p_oids, least(p_most, 100));
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
