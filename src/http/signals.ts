import type { SaidSignal } from '../broker/said-signal.ts';
import type { SignalAnswer } from '../broker/take-signals.ts';
import type { SignalsPage } from '../broker/list-signals.ts';
import { MayflyError } from '../domain/errors.ts';
import { type SignalId, wireId } from '../domain/ids.ts';
import { problemOf } from './problem.ts';
import { afterOf, cursorOf } from './queue-views.ts';
import { noHeaders, noQuery } from './requests.ts';
import { noBody, type Route, route } from './route.ts';
import {
  type SentSignals,
  signalsBody,
  type SignalsPageBody,
  signalsPageBody,
  signalsQuery,
  takenBody,
} from './signal-bodies.ts';

const sendSignals = route({
  method: 'post',
  path: '/v1/signals',
  name: 'sendSignals',
  tag: 'operating',
  summary: 'Tell what is known of workloads, users, devices, incidents and change freezes',
  description:
    'By a source that the catalog names under `signal_sources`. From the answer on decisions know it; what lives and is not permitted any more by it is being revoked. A batch is taken together, and what is wrong with one of it is told in its place.',
  query: noQuery,
  headers: noHeaders,
  body: { schema: signalsBody, take: 'always' },
  ends: true,
  answers: { 200: { says: 'It is known, now or since it was said before.', schema: takenBody } },
  refusals: [
    'signal_source_only',
    'signal_kind_refused',
    'signal_id_used',
    'signals_full',
    'signal_too_old',
    'signal_in_future',
    'signal_subject_unknown',
    'too_many_calls',
  ],
  handle: async (call) => {
    const { body } = call;
    const said = (body.kind === 'batch' ? body.signals : [body]).map(saidOf);
    await call.exchange.limits.countSignals(call.caller, said.length);
    const answers = await call.useCases.takeSignals(call.broker, call.caller, said, call.context);
    const [first] = answers;
    if (body.kind !== 'batch') {
      if (first === undefined || first instanceof MayflyError) throw first ?? new MayflyError('internal');
      return { status: 200, body: viewOfTaken(first) };
    }
    const { requestId } = call.context;
    const signals = answers.map((answer, index) =>
      answer instanceof MayflyError
        ? { id: said[index]?.id ?? '', problem: problemOf(answer, requestId) }
        : viewOfTaken(answer),
    );
    return { status: 200, body: { signals } };
  },
});

const listSignals = route({
  method: 'get',
  path: '/v1/signals',
  name: 'listSignals',
  tag: 'operating',
  summary: 'List the signals, and how fresh their sources are',
  description:
    'Those that stand, and all of the last two days; the latest first. Role: viewer; what is about workloads and users is shown where the role holds everywhere.',
  query: signalsQuery,
  headers: noHeaders,
  body: noBody,
  answers: { 200: { says: 'A page of the signals.', schema: signalsPageBody } },
  refusals: ['operator_only'],
  handle: async (call) => {
    const { standing, limit, cursor } = call.query;
    const before = cursor === undefined ? null : afterOf<SignalId>(cursor);
    const page = await call.useCases.listSignals(call.broker, call.caller, standing, before, limit);
    return { status: 200, body: viewOfPage(page) };
  },
});

export const signalRoutes: readonly Route[] = [sendSignals, listSignals];

type Sent = Exclude<SentSignals, { kind: 'batch' }>;

function saidOf(sent: Sent): SaidSignal {
  const { id, occurred_at: occurredAt } = sent;
  if (sent.kind === 'heartbeat') return { id, kind: 'heartbeat', occurredAt };
  return {
    ...{ id, kind: sent.kind, occurredAt },
    about: 'scope' in sent ? sent.scope : sent.subject,
    name: 'scope' in sent ? (sent.name ?? '') : '',
    value: 'level' in sent ? sent.level : sent.state,
    expiresAt: sent.expires_at ?? null,
    reason: sent.reason ?? null,
  };
}

function viewOfTaken({ key, outcome, receivedAt }: Exclude<SignalAnswer, MayflyError>) {
  return { id: key, outcome, received_at: receivedAt.toISOString() };
}

function viewOfPage({ items, next, sources, leftSuspended }: SignalsPage): SignalsPageBody {
  return {
    items: items.map((item) => ({
      ...{ id: wireId('sig', item.id), source: item.source, source_id: item.key, kind: item.kind },
      ...{ subject: item.subject, ...(item.name === '' ? {} : { name: item.name }), value: item.value },
      ...(item.reason === null ? {} : { reason: item.reason }),
      occurred_at: item.occurredAt.toISOString(),
      ...(item.expiresAt === null ? {} : { expires_at: item.expiresAt.toISOString() }),
      ...{ received_at: item.receivedAt.toISOString(), outcome: item.outcome, standing: item.standing },
    })),
    next_cursor: next === undefined ? null : cursorOf(next),
    left_suspended: leftSuspended.map((each) => ({ ...each })),
    sources: sources.map(({ name, kinds, required, maxAgeSeconds, heardAt, stale }) => ({
      ...{ name, kinds: [...kinds], required, max_age_seconds: maxAgeSeconds },
      ...{ heard_at: heardAt?.toISOString() ?? null, stale },
    })),
  };
}
