import { aliveBody, type ReadyBody, readyBody } from './answers.ts';
import type { HttpDeps, ReadyPart } from './deps.ts';
import type { Page } from './page.ts';
import { noBody } from './route.ts';
import { writeAnswer, writeText } from './write.ts';

/** A check that hangs is a part that is not ready. */
const READINESS_MILLIS = 3_000;

const healthz: Page = {
  method: 'get',
  path: '/healthz',
  name: 'isAlive',
  tag: 'broker',
  summary: 'Is the process alive?',
  description: 'Asks nothing else: a store that is down is no reason to start this process again.',
  body: noBody,
  answers: { 200: { says: 'It answers.', schema: aliveBody } },
  refusals: [],
  show: ({ response }) => writeAnswer(response, { status: 200, body: { status: 'ok' } }),
};

const readyz: Page = {
  method: 'get',
  path: '/readyz',
  name: 'isReady',
  tag: 'broker',
  summary: 'May callers be sent here?',
  body: noBody,
  answers: {
    200: { says: 'Every part is ready.', schema: readyBody },
    503: { says: 'Some part is not; it is named.', schema: readyBody },
  },
  refusals: [],
  show: async ({ deps, response }) => {
    const parts = await readParts(deps);
    const ready = parts.every((part) => part.ok);
    const body: ReadyBody = {
      status: ready ? 'ready' : 'not_ready',
      parts: parts.map(({ part, ok, says }) => (ok || says === undefined ? { part, ok } : { part, ok, says })),
    };
    writeAnswer(response, { status: ready ? 200 : 503, body });
  },
};

async function readParts(deps: HttpDeps): Promise<readonly ReadyPart[]> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<readonly ReadyPart[]>((resolve) => {
    timer = setTimeout(
      () => resolve([{ part: 'readiness', ok: false, says: 'the parts do not answer in time' }]),
      READINESS_MILLIS,
    );
  });
  const failed = (error: unknown): readonly ReadyPart[] => {
    deps.log.warn({ error }, 'readiness can not be told');
    return [{ part: 'readiness', ok: false, says: 'the parts can not be asked' }];
  };
  try {
    return await Promise.race([deps.readiness().catch(failed), late]);
  } finally {
    clearTimeout(timer);
  }
}

const metrics: Page = {
  method: 'get',
  path: '/metrics',
  name: 'readMetrics',
  tag: 'broker',
  summary: 'Metrics for Prometheus',
  body: noBody,
  answers: { 200: { says: 'The text format.', types: ['text/plain'] } },
  refusals: [],
  show: async ({ deps, response }) => {
    const { catalog } = deps.broker;
    const { contentType, text } = await deps.metrics.scrape({
      queue: deps.queue,
      drift: deps.drift,
      signals: deps.signals,
      webhooks: deps.webhooks,
      approvals: deps.approvals,
      sweepAge: deps.sweepAge,
      targets: catalog.ready ? [...catalog.current().catalog.targets.keys()] : [],
    });
    writeText(response, 200, contentType, text);
  },
};

export const healthPages: readonly Page[] = [healthz, readyz, metrics];
