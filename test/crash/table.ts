import { acts, type StepName } from '../../src/domain/step.ts';
import * as approved from './approved.ts';
import * as asked from './asked.ts';
import * as compared from './compared.ts';
import * as cut from './cut.ts';
import * as delegated from './delegated.ts';
import * as drifted from './drifted.ts';
import { killAt } from './killed.ts';
import * as operated from './operated.ts';
import * as outage from './outage.ts';
import * as play from './scenarios.ts';
import * as signalled from './signalled.ts';
import * as told from './told.ts';
import { overtaken, rivalled, undone } from './woken.ts';
import type { World } from './world.ts';

type Act = (typeof acts)[number];

/** In which lives the broker dies on both sides of each act. An act without a life here does not compile. */
const lives: Readonly<Record<Act, Readonly<Record<string, play.Scenario>>>> = {
  'spend-proof': { 'the same request again, by its key': play.openByKey },
  open: { 'the same request again': play.open },
  delegate: { 'the same delegation again': delegated.delegate },
  'claim-task': { 'claimed again': delegated.claim },
  'move-phase': { 'the same event again': delegated.move },
  guarantee: { 'the same key again': play.issue },
  intend: { 'the same key again': play.issue, 'nobody asks again': play.issueAndLeave },
  'intend-alone': { 'a crowd': play.crowd },
  replay: { 'the same key again': play.replay },
  deny: { 'asked again': play.deny },
  mint: { 'the same key again': play.issue, 'nobody asks again': play.issueAndLeave },
  activate: { 'the same key again': play.issue, 'nobody asks again': play.issueAndLeave },
  'ask-approval': { 'the same key again': approved.ask },
  'decide-approval': { 'said again': approved.approve },
  'withdraw-approval': { 'said again': approved.withdraw },
  collect: { 'asked again': approved.collect, 'it is not what was approved': approved.stale },
  'drop-ask': { 'said again': approved.dropped },
  'lapse-approvals': { 'their time is over': approved.overdue },
  'give-up': { 'the same key again': play.refused },
  'decide-renewal': { 'asked again': play.renew },
  renew: { 'asked again': play.renew, 'nobody asks again': play.renewAndLeave },
  extend: { 'asked again': play.renew, 'nobody asks again': play.renewAndLeave },
  end: {
    'a cancel': play.cancel,
    'a complete': play.complete,
    'a task at its deadline': play.taskExpiry,
    'the issuer’s word': delegated.told,
    'what waits for an approval': approved.ended,
  },
  release: { 'asked again': play.release },
  evaluate: { 'asked again': asked.evaluate },
  apply: { 'applied again': play.apply },
  publish: { 'applied again': play.apply },
  'decide-again': { 'a policy that ends one of two': drifted.drift },
  signal: { 'a signal that ends one of two': signalled.signal, 'a signal that suspends': signalled.suspend },
  'lapse-signals': { 'a signal that has expired': signalled.lapse },
  'suspend-task': { 'suspended again': signalled.suspendTask },
  'resume-task': { 'resumed again': signalled.resumeTask },
  'fall-due': { 'a grant at its deadline': play.expiry },
  claim: { 'a cancel': play.cancel },
  beat: { 'a slow target': play.slow },
  fence: { 'a cancel': play.cancel },
  'verify-contained': { 'a cancel': play.cancel },
  contain: { 'a cancel': play.cancel, 'a grant at its deadline': play.expiry },
  fail: { 'a target out of reach': play.unreachable },
  reap: { 'a cancel': play.cancel },
  'verify-clean': { 'a cancel': play.cancel },
  clean: { 'a cancel': play.cancel },
  'release-claims': { 'claims of a dead broker': play.lostClaims },
  'wake-targets': { 'obligations of a dead broker': play.unbegun },
  'expire-tasks': { 'a deadline while nobody was there': play.expiredMeanwhile },
  'cry-overdue': { 'a target out of reach': play.late },
  'feed-alarms': { 'a deadline to come': play.unfed },
  'forget-proofs': { 'proofs of long ago': play.oldProofs },
  'set-alarms': { 'nobody asks again': play.issueAndLeave, 'a cancel': play.cancel },
  retry: { 'asked again': operated.retry },
  'write-off': { 'asked again': operated.writeOff },
  pause: { 'asked again': operated.pause },
  resume: { 'asked again': operated.resume },
  kill: { 'asked again': operated.kill },
  lift: { 'asked again': operated.lift },
  'confirm-kills': { 'the store may have forgotten some': operated.confirmKills },
  'ask-run': { 'asked again': operated.reconcile },
  check: { 'asked again': operated.check },
  'begin-session': { 'asked again': operated.signIn },
  'end-session': { 'asked again': operated.signOut },
  'request-runs': { 'an orphan': compared.orphan },
  'claim-run': { 'an orphan': compared.orphan },
  compare: {
    'an orphan': compared.orphan,
    'a credential that came back': compared.returned,
    'a credential that was lost': compared.lost,
  },
  'forget-unknown': { 'an orphan': compared.orphan },
  'end-changed': { 'a credential that was changed': compared.changed },
  'end-cut-off': { 'a fence without room': cut.besides },
  'finish-run': { 'an orphan': compared.orphan },
  'take-hold': { 'a target that nobody holds': compared.unheld },
  'keep-hold': { 'a target that it holds': compared.holding },
  'lose-hold': { 'another goes on with it': compared.rival },
  'tell-stranger': { 'another goes on with it': compared.rival },
  'notice-failover': { 'the store is on another timeline': outage.failedOver },
  'take-back': { 'what was contained lives again': outage.livesAgain },
  'fence-unrecorded': { 'the store is full': outage.storeFull },
  'tell-fenced': { 'the store takes something again': outage.storeEmptied },
  'tell-webhook': { 'sent tests': told.test },
  'test-webhook': { 'asked again': told.test },
};

/** A case by its name: `fence.after (a cancel)`. */
export interface Case {
  readonly name: string;
  readonly run: (world: World) => Promise<void>;
}

const killed: readonly Case[] = acts.flatMap((act) =>
  Object.entries(lives[act]).flatMap(([life, scenario]) =>
    (['before', 'after'] as const).map((side) => ({
      name: `${act}.${side} (${life})`,
      run: (world: World) => killAt(world, `${act}.${side}`, scenario),
    })),
  ),
);

/** Where a broker sleeps and wakes too late, and the steps of which one shows that it has gone on. */
const slept: readonly (readonly [StepName, readonly StepName[], play.Scenario])[] = [
  ['mint.before', ['give-up.after'], play.issue],
  ['mint.after', ['give-up.after'], play.issue],
  ['activate.before', ['give-up.after'], play.issue],
  ['claim.after', ['contain.after', 'fail.after'], play.cancel],
  ['fence.before', ['contain.after', 'fail.after'], play.cancel],
  ['contain.before', ['contain.after'], play.cancel],
  ['clean.before', ['clean.after'], play.cancel],
];

const woken: readonly Case[] = [
  ...slept.map(([step, later, scenario]) => ({
    name: `woken at ${step}`,
    run: (world: World) => overtaken(world, step, later, scenario),
  })),
  ...(['contain', 'fail'] as const).map((act) => ({
    name: `woken at ${act}.before, while another has it in hand`,
    run: (world: World) =>
      rivalled(world, [`${act}.before`, `${act}.after`], act === 'fail' ? play.unreachable : play.cancel),
  })),
  { name: 'woken at fence.after, and the fence undone', run: undone },
];

/** Every case: each step in each of its lives, and the sleepers. */
export const cases: readonly Case[] = [...killed, ...woken];

/** The few that `npm test` runs: one for each kind of hole. */
export const fewCases: readonly string[] = [
  'mint.after (the same key again)',
  'activate.after (nobody asks again)',
  'end.after (a cancel)',
  'claim.after (a cancel)',
  'fence.after (a cancel)',
  'woken at contain.before, while another has it in hand',
];
