import type { PlantedBug } from '../contract/planted/list.ts';

const suites = ['test/crash/crash.test.ts'];
const claims = 'src/store/claims.ts';

/** Run with alarms in the store by `npm run test:crash -- --planted`. */
export const plantedBugs: readonly PlantedBug[] = [
  {
    name: 'no intent is committed before the mint',
    edits: [
      {
        file: 'src/broker/issue-grant.ts',
        from: 'const outcome = await stage.store.intend(decided.intent, state);',
        to: "Object.assign(decided.intent, { late: () => stage.store.intend(decided.intent, state) });\n    const outcome: string = 'done';",
      },
      {
        file: 'src/broker/mint-grant.ts',
        from: "step('mint.after');",
        to: "step('mint.after');\n    await intent.late();",
      },
    ],
    suites,
    cases: 'mint.after (nobody asks again)',
  },
  {
    name: 'no sweeper',
    edits: [{ file: 'src/revocation/engine.ts', from: 'this.#sweeper.start();', to: '' }],
    suites,
    cases: 'claim.after (a cancel)',
  },
  {
    name: 'fence skipped',
    edits: [
      {
        file: 'src/revocation/end-batch.ts',
        from: '(refs, limited) => session.fence(refs, limited, view)',
        to: 'async (refs) => refs.map(() => ({ ok: true as const, evidence: {} }))',
      },
    ],
    suites,
    cases: 'end.after (a cancel)',
  },
  {
    name: '`verify` is always true',
    edits: [
      {
        file: 'src/revocation/looking.ts',
        from: "else if (isTrue(verdict.contained) && (wanted === 'contained' || isTrue(verdict.clean)))",
        to: 'else if (isTrue(true))',
      },
    ],
    suites,
    cases: 'woken at fence.after, and the fence undone',
  },
  {
    name: 'containment is written without the number of its claim',
    edits: [
      {
        file: claims,
        from: "WHERE r.id = d.id AND r.claim_number = d.claim AND r.state = 'running' RETURNING r.id, r.grant_id",
        to: "WHERE r.id = d.id AND r.state = 'running' RETURNING r.id, r.grant_id",
      },
    ],
    suites,
    cases: 'woken at contain.before, while another has it in hand',
  },
  {
    name: 'a failure is written without the number of its claim',
    edits: [
      {
        file: claims,
        from: "WHERE r.id = d.id AND r.claim_number = d.claim AND r.state IN ('running', 'contained') RETURNING r.id, d.event)",
        to: "WHERE r.id = d.id AND r.state IN ('running', 'contained') RETURNING r.id, d.event)",
      },
    ],
    suites,
    cases: 'woken at fail.before, while another has it in hand',
  },
  {
    name: 'a task ends in one transaction and its grants in another',
    edits: [
      {
        file: 'src/broker/end-task.ts',
        from: 'const { tasks, wait } = await endSubtree(tx, id, state, endedBy);',
        to: 'const { tasks, wait } = await deps.db.transaction({}, (other) => endSubtree(other, id, state, endedBy));',
      },
    ],
    suites,
    cases: 'end.before (a cancel)',
  },
  {
    name: 'an intent falls due only at the deadline of its grant',
    edits: [
      {
        file: 'src/broker/decide-grant.ts',
        from: 'const dueAt = new Date(mintBy.getTime() + UNREPORTED_MILLIS);',
        to: 'const dueAt = new Date(now.getTime() + life.seconds * 1000 + 0 * UNREPORTED_MILLIS);',
      },
    ],
    suites,
    cases: 'mint.after (the same key again)',
  },
  {
    name: 'a renewal is stored in one transaction and told in another',
    edits: [
      {
        file: 'src/broker/renew-grant.ts',
        from: 'const deadline = await extendGrant(tx, grant.id, until, renewed.facts, decisionId, active.number, task.phase);',
        to: 'const deadline = await deps.db.transaction({}, async (other) =>\n      extendGrant(other, grant.id, until, renewed.facts, decisionId, active.number, task.phase));',
      },
    ],
    suites,
    cases: 'extend.before (nobody asks again)',
  },
  {
    name: 'what a dead broker left undecided is not looked for',
    edits: [
      {
        file: 'src/broker/drift-sweeper.ts',
        from: 'this.#timer = setTimeout(() => this.start(), this.#options.everySeconds * 1000);\n    this.wake();',
        to: 'this.#timer = setTimeout(() => {}, 1000);',
      },
    ],
    suites,
    cases: 'decide-again.before',
  },
  {
    name: 'a pause is stored in one transaction and told in another',
    edits: [
      {
        file: 'src/broker/pause-target.ts',
        from: 'const fresh = await insertPause(tx, { target, ...request, by: operator });',
        to: 'const fresh = await deps.db.transaction({}, (other) => insertPause(other, { target, ...request, by: operator }));',
      },
    ],
    suites,
    cases: 'pause.before (asked again)',
  },
  {
    name: 'a kill ends tasks in one transaction and grants in another',
    edits: [
      {
        file: 'src/broker/kill.ts',
        from: 'const tasks = await endKilledTasks(tx, kill);',
        to: 'const tasks = await deps.db.transaction({}, (other) => endKilledTasks(other, kill));',
      },
    ],
    suites,
    cases: 'kill.before (asked again)',
  },
];
