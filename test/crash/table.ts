import { acts, type StepName } from '../../src/domain/step.ts';
import * as play from './scenarios.ts';

type Act = (typeof acts)[number];

/** In which lives the broker dies on both sides of each act. An act without a life here does not compile. */
const lives: Readonly<Record<Act, Readonly<Record<string, play.Scenario>>>> = {
  open: { 'the same request again': play.open },
  guarantee: { 'the same key again': play.issue },
  intend: { 'the same key again': play.issue, 'nobody asks again': play.issueAndLeave },
  'intend-alone': { 'a crowd': play.crowd },
  replay: { 'the same key again': play.replay },
  deny: { 'asked again': play.deny },
  mint: { 'the same key again': play.issue, 'nobody asks again': play.issueAndLeave },
  activate: { 'the same key again': play.issue, 'nobody asks again': play.issueAndLeave },
  'give-up': { 'the same key again': play.refused },
  'decide-renewal': { 'asked again': play.renew },
  renew: { 'asked again': play.renew, 'nobody asks again': play.renewAndLeave },
  extend: { 'asked again': play.renew, 'nobody asks again': play.renewAndLeave },
  end: { 'a cancel': play.cancel, 'a complete': play.complete, 'a task at its deadline': play.taskExpiry },
  release: { 'asked again': play.release },
  apply: { 'applied again': play.apply },
  publish: { 'applied again': play.apply },
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
  'set-alarms': { 'a grant at its deadline': play.expiry, 'a cancel': play.cancel },
};

export interface Case {
  /** `fence.after (a cancel)` */
  readonly name: string;
  readonly step: StepName;
  readonly scenario: play.Scenario;
}

/** Every case: each step in each of its lives. */
export const cases: readonly Case[] = acts.flatMap((act) =>
  Object.entries(lives[act]).flatMap(([life, scenario]) =>
    (['before', 'after'] as const).map((side) => ({
      name: `${act}.${side} (${life})`,
      step: `${act}.${side}` as const,
      scenario,
    })),
  ),
);

/** The few that `npm test` runs: at least one for each kind of hole. */
export const fewCases: readonly string[] = [
  'mint.after (the same key again)',
  'activate.after (nobody asks again)',
  'end.after (a cancel)',
  'claim.after (a cancel)',
  'fence.after (a cancel)',
  'contain.after (a cancel)',
];
