import { ownedBugs } from './owned.ts';

/** A mistake that somebody could make, and the cases that must notice it. */
export interface PlantedBug {
  readonly name: string;
  /** Each `from` stands exactly once in its file. */
  readonly edits: readonly { readonly file: string; readonly from: string; readonly to: string }[];
  /** The suites, and a part of the full names of the cases in them that must fail. */
  readonly suites: readonly string[];
  readonly cases: string;
}

const sql = (part: string): string => `providers/postgres/definer${part}.sql`;
const source = (name: string): string => `providers/postgres/${name}.ts`;
const suite = (name: string): string => `test/contract/postgres-${name}.test.ts`;

/** Run on PostgreSQL 18 by `npm run test:contract -- postgres --planted`. */
export const plantedBugs: readonly PlantedBug[] = [
  {
    name: 'one sweep instead of three',
    edits: [{ file: source('sweep'), from: 'const emptySweeps = 3;', to: 'const emptySweeps = 1;' }],
    suites: ['providers/postgres/sweep.test.ts'],
    cases: 'sessions are gone after three empty sweeps',
  },
  {
    name: 'no sweep at all',
    edits: [
      {
        file: sql('-end'),
        from: 'SELECT m.role_oid, m.pid, pg_terminate_backend(m.pid) AS told FROM met m',
        to: 'SELECT m.role_oid, m.pid, NULL::boolean AS told FROM met m',
      },
    ],
    suites: [suite('life')],
    cases: 'an open cursor returns no more rows',
  },
  {
    name: 'no tombstone for a handle that was never minted',
    edits: [
      {
        file: sql('-end'),
        from: 'WHERE q.handle IS NULL OR q.handle <> ALL (v_held) ORDER BY q.handle',
        to: 'WHERE q.handle IS NULL ORDER BY q.handle',
      },
    ],
    suites: [suite('attacks')],
    cases: 'a mint that its own end overtook runs into the tombstone',
  },
  {
    name: 'absence counts without a tombstone',
    edits: [
      {
        file: source('verify'),
        from: 'const nothingInFlight = row.fenced_at !== null ||',
        to: 'const nothingInFlight = row.fenced_at !== null || absent ||',
      },
    ],
    suites: [suite('life')],
    cases: 'a handle that was never minted counts as gone only behind its tombstone',
  },
  {
    name: 'fence and drop in one transaction',
    edits: [
      {
        file: sql('-end'),
        from: "EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL CONNECTION LIMIT 0', r.role_name);",
        to:
          "EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL CONNECTION LIMIT 0', r.role_name);\n" +
          "          EXECUTE format('DROP ROLE %I', r.role_name);",
      },
    ],
    suites: [suite('attacks')],
    cases: 'what the role owns in another database is reported, contained',
  },
  {
    name: 'roles looked for by name only',
    edits: [
      {
        file: sql(''),
        from: 'SELECT b.oid FROM pg_authid b WHERE b.oid = h.role_oid AND h.dropped_at IS NULL\n    UNION ',
        to: '',
      },
      { file: sql(''), from: 'SELECT b.oid FROM pg_authid b WHERE b.oid = r.remembered\n    UNION ', to: '' },
    ],
    suites: [suite('attacks')],
    cases: 'a renamed role is found by its OID',
  },
  {
    name: 'sessions looked for through the role that is still there',
    edits: [
      {
        file: sql('-end'),
        from: 'ON s.usesysid = q.role_oid\n    UNION',
        to: 'ON s.usesysid = (SELECT a.oid FROM pg_authid a WHERE a.oid = q.role_oid)\n    UNION',
      },
    ],
    suites: [suite('life')],
    cases: 'a role dropped by somebody else leaves sessions',
  },
  {
    name: 'no check of the system identifier',
    edits: [
      {
        file: source('handle'),
        from: 'return minted === undefined ||',
        to: 'return minted !== 1 || minted === undefined ||',
      },
    ],
    suites: [suite('attacks')],
    cases: 'absence in another cluster behind the same address means nothing',
  },
  {
    name: 'logins asleep are not looked for',
    edits: [{ file: sql(''), from: 'AND l.granted AND l.pid IS NOT NULL', to: 'AND l.granted AND l.pid IS NULL' }],
    suites: [suite('attacks')],
    cases: 'a login asleep before it shows its user is seen, ended',
  },
  {
    name: 'permission denied is taken as success',
    edits: [
      {
        file: source('reap'),
        from: 'jobs.forEach((job) => fail(job, failed));\n      return [];',
        to:
          "jobs.forEach((job) => (failed.errorClass === 'denied' ? (outcomes[job.index] = { ok: true }) : fail(job, failed)));\n" +
          '      return [];',
      },
    ],
    suites: [suite('attacks')],
    cases: 'permission denied is never success: reap',
  },
  {
    name: "VALID UNTIL from the broker's clock, without the skew",
    edits: [
      {
        file: source('clock'),
        from: 'return new Date(Math.floor(time.getTime() + offset - error));',
        to: 'return new Date(Math.floor(time.getTime() + 0 * (offset - error)));',
      },
    ],
    suites: ['providers/postgres/clock.test.ts'],
    cases: 'a deadline told to the target never comes later there',
  },
  {
    name: 'a fence that waits for the row that an agent holds',
    edits: [
      {
        file: sql('-end'),
        from: 'ORDER BY a.oid FOR UPDATE SKIP LOCKED);',
        to: 'ORDER BY a.oid FOR UPDATE);',
      },
    ],
    suites: [suite('attacks')],
    cases: 'an agent that holds the row of its own role',
  },
  {
    name: 'membership that allows SET ROLE',
    edits: [{ file: sql('-mint'), from: "' WITH ADMIN FALSE, INHERIT TRUE, SET FALSE'", to: "''" }],
    suites: [suite('life')],
    cases: 'since 16: SET ROLE to the template is refused',
  },
  {
    name: 'memberships are left in place',
    edits: [
      {
        file: sql('-end'),
        from: "EXECUTE format('REVOKE %s FROM %s', m.parent, m.child)",
        to: "CONTINUE;\n          EXECUTE format('REVOKE %s FROM %s', m.parent, m.child)",
      },
    ],
    suites: [suite('life')],
    cases: 'it is minted, does what is allowed',
  },
  {
    name: 'a role that only bears our name is taken for ours',
    edits: [
      {
        file: sql(''),
        from: 'coalesce(h.dropped_at IS NULL AND a.oid = h.role_oid AND a.rolname = r.handle, false)',
        to: 'coalesce(a.rolname = r.handle, false)',
      },
    ],
    suites: [suite('attacks')],
    cases: 'a role that only bears our name is not touched',
  },
  {
    name: 'any installation may work here',
    edits: [{ file: sql(''), from: 'WHERE i.id = p_installation;\n  IF NOT FOUND', to: 'LIMIT 1;\n  IF NOT FOUND' }],
    suites: [suite('stolen')],
    cases: 'cannot mint with another installation',
  },
  {
    name: 'a mint after mint_by',
    edits: [
      {
        file: sql('-mint'),
        from: 'IF v_now > p_mint_by OR v_now >= p_valid_until THEN',
        to: 'IF v_now >= p_valid_until THEN',
      },
      { file: sql('-mint'), from: 'IF clock_timestamp() > p_mint_by THEN', to: 'IF false THEN' },
    ],
    suites: [suite('attacks')],
    cases: 'is refused after mint_by, by the clock of the target',
  },
  {
    name: 'renewal of what was fenced gives the login back',
    edits: [
      {
        file: sql('-mint'),
        from: 'v_row.role_oid IS NULL OR v_row.fenced_at IS NOT NULL OR',
        to: 'v_row.role_oid IS NULL OR',
      },
      { file: sql('-mint'), from: 'AND r.ours AND r.can_login;', to: 'AND r.ours;' },
      {
        file: sql('-mint'),
        from: "format('ALTER ROLE %I VALID UNTIL %L', v_role",
        to: "format('ALTER ROLE %I LOGIN VALID UNTIL %L', v_role",
      },
    ],
    suites: [suite('life')],
    cases: 'renewal revives nothing',
  },
  {
    name: 'no longest life in the target',
    edits: [
      {
        file: sql('-mint'),
        from: 'IF p_valid_until > v_now + make_interval',
        to: 'IF false AND p_valid_until > v_now + make_interval',
      },
    ],
    suites: [suite('stolen')],
    cases: 'cannot mint with a longer life than the template allows',
  },
  {
    name: 'no cap of live roles',
    edits: [{ file: sql('-mint'), from: 'IF v_live >= v_max_live THEN', to: 'IF false THEN' }],
    suites: [suite('stolen')],
    cases: 'gets no more live roles than the template allows',
  },
  {
    name: 'the verifier in the log, when a mint fails',
    edits: [{ file: sql('-mint'), from: 'RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM;', to: 'RAISE;' }],
    suites: [suite('stolen')],
    cases: 'leaves neither password nor verifier in the log',
  },
  ...ownedBugs,
  {
    name: 'a role is dropped that was never fenced',
    edits: [{ file: sql('-end'), from: 'ELSIF r.fenced_at IS NULL OR r.can_login THEN', to: 'ELSIF false THEN' }],
    suites: [suite('attacks')],
    cases: 'only what was fenced is dropped',
  },
  {
    name: 'the count of live roles is set back too far',
    edits: [{ file: sql('-mint'), from: 'setval(v_counter, v_live + 1)', to: 'setval(v_counter, 1)' }],
    suites: [suite('scale')],
    cases: 'the cap is exact, before and after some have ended',
  },
  {
    name: 'one membership that cannot be removed yet fails the batch',
    edits: [{ file: sql('-end'), from: 'WHEN OTHERS THEN\n      CONTINUE;', to: 'WHEN OTHERS THEN\n      RAISE;' }],
    suites: [suite('scale')],
    cases: 'one whose membership cannot be removed yet does not keep its neighbours theirs',
  },
];
