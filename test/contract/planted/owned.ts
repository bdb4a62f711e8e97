import type { PlantedBug } from './list.ts';

/** Mistakes about what a role owns, and what goes on inside it. */
export const ownedBugs: readonly PlantedBug[] = [
  {
    name: 'what is owned is not dropped',
    edits: [
      {
        file: 'providers/postgres/definer-disown.sql',
        from: "EXECUTE format('DROP %s %s CASCADE', CASE",
        to: "PERFORM format('%s %s', CASE",
      },
      {
        file: 'providers/postgres/definer-disown.sql',
        from: "EXECUTE format('DROP OWNED BY %s', p_role::regrole);",
        to: 'NULL;',
      },
    ],
    suites: ['test/contract/postgres-attacks.test.ts'],
    cases: 'what the role owns in this database is dropped with it',
  },
  {
    name: 'what others need goes with it',
    edits: [
      {
        file: 'providers/postgres/definer-disown.sql',
        from: 'IF cardinality(v_bystanders) > 0 THEN',
        to: 'IF false THEN',
      },
    ],
    suites: ['test/contract/postgres-owned.test.ts'],
    cases: 'what something of a stranger needs stays',
  },
  {
    name: 'large objects all at once',
    edits: [
      { file: 'providers/postgres/definer-disown.sql', from: 'ORDER BY m.oid LIMIT p_limit);', to: 'ORDER BY m.oid);' },
    ],
    suites: ['test/contract/postgres-owned.test.ts'],
    cases: 'more large objects than the lock table holds',
  },
  {
    name: 'a kept table keeps its triggers',
    edits: [
      { file: 'providers/postgres/definer-disown.sql', from: 'NOT t.tgisinternal AND t.tgparentid = 0', to: 'false' },
    ],
    suites: ['test/contract/postgres-quarantine.test.ts'],
    cases: 'is tables and sequences, with a role that can do nothing',
  },
  {
    name: 'only the own database is cleaned',
    edits: [
      {
        file: 'providers/postgres/disown.ts',
        from: '(name) => target.config.databases.includes(name)',
        to: '() => false',
      },
    ],
    suites: ['test/contract/postgres-databases.test.ts'],
    cases: 'a database that is listed is cleaned',
  },
  {
    name: 'work of others inside the code goes on',
    edits: [
      {
        file: 'providers/postgres/definer-code.sql',
        from: 'count(pg_terminate_backend(s.pid)) INTO v_told',
        to: '0 INTO v_told',
      },
    ],
    suites: ['test/contract/postgres-running.test.ts'],
    cases: 'a call inside its function is ended, whoever makes it',
  },
  {
    name: 'no room is made in a full lock table',
    edits: [{ file: 'providers/postgres/definer-relief.sql', from: 'WHERE p_really AND', to: 'WHERE false AND' }],
    suites: ['test/contract/postgres-full-locks.test.ts'],
    cases: 'and takes again whatever becomes free is ended too',
  },
];
