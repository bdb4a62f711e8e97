import { z } from 'zod';
import { type SignalKind, signalKinds } from '../domain/signal.ts';
import type { Fault } from './faults.ts';
import { name, seconds, uniqueList } from './names.ts';
import { checkWorkloads, keysFault, thumbprint } from './tool-gateways.ts';
import { workload } from './trust-schema.ts';
import type { SignalSource } from '../domain/signal-source.ts';
import { declaredNames, readList, type YamlFile } from './yaml.ts';

/** No signal is accepted that is older than a day, so that what was forgotten can not come again. */
const LONGEST_AGE_SECONDS = 86_400;
/** Only about whoever acts: a freeze suspends nobody. */
const SUSPENDING: readonly SignalKind[] = ['device', 'user'];

const kind = z.enum(signalKinds, `must be one of ${signalKinds.join(', ')}`);

const sourceSchema = z
  .strictObject({
    name,
    workloads: uniqueList(workload),
    proof_of_possession: z.enum(['required', 'none'], 'must be `required` or `none`').default('required'),
    keys: uniqueList(thumbprint).default([]),
    kinds: uniqueList(kind),
    max_age_seconds: seconds(LONGEST_AGE_SECONDS),
    heartbeat: z.boolean().default(false),
    required: z.boolean().default(false),
    suspends: uniqueList(kind).default([]),
  })
  .superRefine((source, context) => {
    const fault = (path: PropertyKey[], message: string) => context.addIssue({ code: 'custom', path, message });
    const keys = keysFault(source);
    if (keys !== undefined) fault(['keys'], keys);
    if (source.workloads.length === 0) fault(['workloads'], 'must name at least one');
    if (source.kinds.length === 0) fault(['kinds'], 'must name at least one');
    if (source.required && !source.heartbeat)
      fault(['required'], 'needs `heartbeat: true`: nothing tells the silence of other sources from quiet');
    for (const [index, one] of source.suspends.entries()) {
      if (!SUSPENDING.includes(one)) fault(['suspends', index], `must be one of ${SUSPENDING.join(', ')}`);
      else if (!source.kinds.includes(one)) fault(['suspends', index], 'does not stand under `kinds`');
    }
  });

/** Reads `signal_sources` of `trust.yaml`. */
export function readSignalSources(file: YamlFile, faults: Fault[]): readonly SignalSource[] {
  const said = z.object({ signal_sources: z.unknown(), workload_sources: z.unknown() }).partial().safeParse(file.value);
  if (said.data?.signal_sources === undefined) return [];
  const items = readList(file, ['signal_sources'], sourceSchema, faults);
  const sources = declaredNames(said.data.workload_sources);
  items.forEach((item, index) => {
    const { value } = item;
    const others = items.slice(0, index).map((other) => other.value);
    if (others.some((other) => other.name === value.name))
      faults.push(item.fault(['name'], `the name ${value.name} stands here twice`));
    checkWorkloads(item, ['workloads'], value.workloads, sources, faults);
    value.workloads.forEach((one, place) => {
      // Which of the two it speaks as could not be told.
      if (others.some((other) => other.workloads.includes(one)))
        faults.push(item.fault(['workloads', place], `${one} is another source already`));
    });
  });
  return items.map(({ value }) => ({
    name: value.name,
    workloads: value.workloads,
    keys: value.proof_of_possession === 'none' ? null : value.keys,
    kinds: value.kinds,
    maxAgeSeconds: value.max_age_seconds,
    heartbeat: value.heartbeat,
    required: value.required,
    suspends: value.suspends,
  }));
}
