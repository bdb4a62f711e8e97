import express, { type ErrorRequestHandler, type Express, type RequestHandler } from 'express';
import { MayflyError } from '../domain/errors.ts';
import { accessRoutes } from './access.ts';
import { approvalRoutes } from './approvals.ts';
import { authzenConfigurationPage } from './authzen-configuration.ts';
import { CallerGone } from './body.ts';
import { takeBackUndelivered } from './deliver.ts';
import { type HttpDeps, useCases } from './deps.ts';
import { catalogRoutes } from './catalog.ts';
import { delegationRoutes } from './delegation.ts';
import { docsPages } from './docs.ts';
import { type Exchange, openExchange } from './exchange.ts';
import { grantRoutes } from './grants.ts';
import { createGuard, nameRequest } from './guard.ts';
import { createSecurityHeaders } from './headers.ts';
import { healthPages } from './health.ts';
import { type InHand, inHandOf } from './in-hand.ts';
import { Limits } from './limits.ts';
import { decisionRoutes } from './decisions.ts';
import { killRoutes } from './kills.ts';
import { signalRoutes } from './signals.ts';
import { suspensionRoutes } from './suspensions.ts';
import { logRequest, statusOf } from './log.ts';
import { loginPages } from './login.ts';
import { notesOf } from './notes.ts';
import { documentPage } from './openapi.ts';
import type { Page } from './page.ts';
import { problemPage } from './problem-pages.ts';
import { asMayflyError, sendProblem } from './problem.ts';
import { protectedResourcePage } from './protected-resource.ts';
import { reachRoutes } from './reach.ts';
import { revocationRoutes } from './revocations.ts';
import type { Operation, Route } from './route.ts';
import { targetRoutes } from './targets.ts';
import { taskRoutes } from './tasks.ts';
import { ownVersion } from './version.ts';
import { webhookRoutes } from './webhooks.ts';
import { whoAmIRoutes } from './whoami.ts';
import { writeAnswer } from './write.ts';

/** The broker's HTTP face. Give it to `startServer`. */
export function createApp(deps: HttpDeps): Express {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.set('query parser', false);
  app.enable('strict routing');
  app.enable('case sensitive routing');

  const version = ownVersion();
  deps.metrics.build(version);
  const routes = [
    ...taskRoutes,
    ...delegationRoutes,
    ...grantRoutes,
    ...accessRoutes,
    ...revocationRoutes,
    ...decisionRoutes,
    ...approvalRoutes,
    ...killRoutes,
    ...signalRoutes,
    ...suspensionRoutes,
    ...targetRoutes,
    ...catalogRoutes,
    ...reachRoutes,
    ...webhookRoutes,
    ...whoAmIRoutes,
  ];
  const plain = [
    ...healthPages,
    problemPage,
    protectedResourcePage,
    authzenConfigurationPage,
    ...loginPages,
    ...docsPages,
  ];
  const pages = [...plain, documentPage(routes, plain, deps.config.public_url, version)];
  const inHand = inHandOf(app);
  const limits = new Limits(deps.config);

  app.use(entrance(deps));
  for (const route of routes) app[route.method](expressPath(route), answerRoute(deps, inHand, limits, route));
  for (const page of pages) app[page.method](expressPath(page), showPage(deps, limits, page));
  for (const [path, allow] of methodsByPath([...routes, ...pages])) app.route(path).all(refuseMethod(allow));
  app.use(() => {
    throw new MayflyError('not_found');
  });
  // Four parameters make it Express's handler of errors.
  const onError: ErrorRequestHandler = (error: unknown, request, response, _next) =>
    sendProblem(request, response, error, deps);
  app.use(onError);
  return app;
}

/** What happens to every request before it is looked at: its name, its headers, its log line, and whether it may come in. */
function entrance(deps: HttpDeps): RequestHandler {
  const guard = createGuard(deps.config);
  const setHeaders = createSecurityHeaders(deps.config.public_url);
  return (request, response, next) => {
    nameRequest(request, response);
    setHeaders(request, response);
    if (deps.draining()) response.setHeader('Connection', 'close');
    const notes = notesOf(response);
    notes.client = guard.clientOf(request);
    response.on('close', () => {
      logRequest(deps.log, request, response);
      deps.metrics.answered(notes.route, request.method, statusOf(response), (performance.now() - notes.began) / 1000);
    });
    guard.check(request);
    next();
  };
}

function answerRoute(deps: HttpDeps, inHand: InHand, limits: Limits, route: Route): RequestHandler {
  const served = { deps, useCases: deps.useCases ?? useCases, inHand, limits };
  return (request, response) => {
    notesOf(response).route = route.path;
    const work = answer(openExchange({ ...served, request, response, params: request.params }), route);
    inHand.hold(work);
    return work;
  };
}

async function answer(exchange: Exchange, route: Route): Promise<void> {
  const { deps, request, response } = exchange;
  let delivered = false;
  try {
    const given = await route.run(exchange);
    if (deps.draining()) response.setHeader('Connection', 'close');
    writeAnswer(response, given);
    delivered = true;
  } catch (error) {
    if (!response.destroyed) sendProblem(request, response, error, deps);
    // The caller left and its line is written: what is our fault must still be seen.
    else if (!(error instanceof CallerGone) && asMayflyError(error).code === 'internal') {
      deps.log.error({ request_id: exchange.context.requestId, error }, 'a request whose caller left failed');
    }
  }
  await takeBackUndelivered(exchange, delivered);
}

function showPage(deps: HttpDeps, limits: Limits, page: Page): RequestHandler {
  return async (request, response) => {
    const notes = notesOf(response);
    notes.route = page.path;
    if (page.counted) await limits.countAddress(notes.client);
    await page.show({ deps, useCases: deps.useCases ?? useCases, request, response, params: request.params });
  };
}

function refuseMethod(allow: string): RequestHandler {
  return (_request, response) => {
    response.setHeader('Allow', allow);
    throw new MayflyError('method_not_allowed');
  };
}

/** `/v1/tasks/{id}` → `/v1/tasks/:id`. */
function expressPath({ path }: Pick<Operation, 'path'>): string {
  return path.replace(/\{(\w+)\}/g, ':$1');
}

function methodsByPath(operations: readonly Operation[]): Map<string, string> {
  const methods = new Map<string, string[]>();
  for (const operation of operations) {
    const own = operation.method === 'get' ? ['GET', 'HEAD'] : [operation.method.toUpperCase()];
    methods.set(expressPath(operation), [...(methods.get(expressPath(operation)) ?? []), ...own]);
  }
  return new Map([...methods].map(([path, allowed]) => [path, allowed.join(', ')]));
}
