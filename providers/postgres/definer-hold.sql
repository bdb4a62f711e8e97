-- Part 8: who holds the target. Two stores can call themselves by one installation id: a copy of the store does. So the holder
-- writes down its store, its tenure and a beat that it counts up; a copy finds beats that its own store knows nothing of.

-- Answers the record. With a tenure, writes it first: where nobody holds the target, or this very tenure with an earlier beat.
CREATE OR REPLACE FUNCTION mayfly.hold(p_installation uuid, p_store text, p_tenure uuid, p_beat bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
BEGIN
  IF p_tenure IS NOT NULL THEN
    PERFORM mayfly.assert_owner(p_installation);
    UPDATE mayfly.installation i SET store = p_store, tenure = p_tenure, beat = p_beat
    WHERE i.id = p_installation AND (i.tenure IS NULL OR (i.tenure = p_tenure AND i.store = p_store AND i.beat < p_beat
        -- Years of beats at once are nobody's: whoever stole the login must not end the counting.
        AND p_beat - i.beat <= 10000000));
  END IF;
  RETURN (SELECT jsonb_build_object('installation', i.id, 'epoch', i.epoch, 'store', i.store, 'tenure', i.tenure, 'beat', i.beat)
          FROM mayfly.installation i);
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
