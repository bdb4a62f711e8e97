import { isIP } from 'node:net';
import { z } from 'zod';
import { parseCidr } from '../domain/cidr.ts';
import { isNews } from '../domain/news.ts';
import type { Fault } from './faults.ts';
import { name, uniqueList } from './names.ts';
import { envOwner, parseReference, webhookOwner } from './references.ts';
import type { Webhook } from './types.ts';
import { type Item, readList, type YamlFile } from './yaml.ts';

/** More than anybody looks at, and few enough that each may be asked after every second. */
const MOST = 50;

const reference = z.string().regex(/^(env|file):./, 'must be a reference: `env:NAME` or `file:path`');

const webhookSchema = z
  .strictObject({
    name,
    dev: z.boolean().default(false),
    url: z.string().min(1).max(2000),
    format: z.enum(['standard', 'slack'], 'must be standard or slack').default('standard'),
    events: uniqueList(
      z.string().regex(/^[a-z]+\.([a-z_]+|\*)$/, 'must be a type of event, or a family of them: `kill.*`'),
    ).refine((events) => events.length > 0, 'must name what is told'),
    secret: reference.optional(),
    old_secret: reference.optional(),
    targets: uniqueList(name)
      .refine((targets) => targets.length > 0, 'must name targets, or be absent')
      .optional(),
    addresses: uniqueList(
      z.string().refine((block) => parseCidr(block) !== undefined, 'must be an address or a CIDR block'),
    )
      .refine((blocks) => blocks.length > 0, 'must name addresses, or be absent')
      .optional(),
  })
  .superRefine(({ format, secret, old_secret: old }, context) => {
    const missing = (message: string) => context.addIssue({ code: 'custom', path: ['secret'], message });
    if (secret === undefined && format === 'standard') missing('is required: it signs what is sent');
    else if (secret === undefined && old !== undefined) missing('is required beside old_secret');
  });

export interface WebhooksContext {
  readonly declaredTargets: ReadonlySet<string>;
  readonly allowDev: boolean;
}

/** Reads `webhooks.yaml`. */
export function readWebhooks(file: YamlFile, context: WebhooksContext, faults: Fault[]): readonly Webhook[] {
  if (file.value === null) return [];
  const items = readList(file, [], webhookSchema, faults);
  if (items.length > MOST) faults.push(file.fault([MOST], `there are at most ${MOST} webhooks`));
  const names = new Set<string>();
  for (const item of items) {
    if (names.has(item.value.name)) faults.push(item.fault(['name'], `the name ${item.value.name} stands here twice`));
    names.add(item.value.name);
  }
  const owners = [...names].map(webhookOwner);
  for (const item of items) check(item, owners, context, faults);
  return items.map(({ value }) => ({
    name: value.name,
    dev: value.dev,
    url: value.url,
    format: value.format,
    events: value.events,
    secrets: [value.secret, value.old_secret].flatMap((one) => one ?? []),
    targets: value.targets ?? null,
    addresses: value.addresses ?? null,
  }));
}

type WebhookItem = Item<z.infer<typeof webhookSchema>>;

function check(item: WebhookItem, owners: readonly string[], context: WebhooksContext, faults: Fault[]): void {
  const { name: own, dev, url, format, events, targets } = item.value;
  if (dev && !context.allowDev) faults.push(item.fault(['dev'], 'only a broker in dev mode believes in this'));
  events.forEach((pattern, index) => {
    if (!isNews(pattern))
      faults.push(item.fault(['events', index], `nothing is told as ${pattern}: see docs/webhooks.md`));
  });
  targets?.forEach((target, index) => {
    if (!context.declaredTargets.has(target))
      faults.push(item.fault(['targets', index], `there is no target ${target}`));
  });
  const refer = (field: string, text: string | undefined) => {
    const why = text === undefined ? undefined : referenceFault(webhookOwner(own), owners, text);
    if (why !== undefined) faults.push(item.fault([field], why));
  };
  refer('secret', item.value.secret);
  refer('old_secret', item.value.old_secret);
  if (/^(env|file):/.test(url)) return refer('url', url);
  if (format === 'slack' && !dev)
    faults.push(item.fault(['url'], 'is itself the secret: write `env:NAME` or `file:path`'));
  const why = webhookUrlFault(url, dev);
  if (why !== undefined) faults.push(item.fault(['url'], why));
}

function referenceFault(owner: string, owners: readonly string[], text: string): string | undefined {
  const parsed = parseReference(owner, text);
  if (parsed.kind === 'refused') return parsed.why;
  const other = parsed.kind === 'env' ? envOwner(parsed.name, owners) : owner;
  return other === owner || other === undefined
    ? undefined
    : `that variable belongs to the webhook ${other.slice(other.indexOf('/') + 1)}`;
}

/** Why it is no URL for a webhook. A reference is looked at where it leads. */
export function webhookUrlFault(text: string, dev: boolean): string | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const safe = url?.protocol === 'https:' || (dev && url?.protocol === 'http:' && isLoopback(url.hostname));
  if (url === undefined || !safe || url.username !== '' || url.password !== '' || url.hash !== '')
    return `must be an https URL without user or fragment${dev ? ', or http on loopback' : ''}`;
  return undefined;
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '[::1]' || (isIP(host) === 4 && host.startsWith('127.'));
}
