import type { PreparedBy, Preparation } from '../../src/provider.ts';
import { apply } from './apply.ts';
import type { VaultEntitlement, VaultTarget } from './schema.ts';
import { brokerName } from './policy.ts';
import { type Entitlements, writes } from './writes.ts';

export const preparation: Preparation<VaultTarget, VaultEntitlement> = {
  script: async (target, entitlements, installation, _secret, by) => script(target, entitlements, installation, by),
  apply,
};

function script(
  target: VaultTarget,
  entitlements: Entitlements,
  installation: string,
  by: PreparedBy | undefined,
): string {
  const lines = [
    '#!/bin/sh',
    '# For an administrator: BAO_ADDR, BAO_TOKEN and, where there is one, BAO_NAMESPACE say where and who. BAO=vault for that client.',
    '# It can be run again. Policies of agents are yours: it writes none.',
    'set -eu',
    'bao=${BAO:-bao}',
  ];
  for (const { says, path, data, unless } of writes(target, entitlements)) {
    const before = unless === undefined ? '' : `"$bao" read ${unless} >/dev/null 2>&1 || `;
    lines.push('', `# ${says}`, `${before}"$bao" write ${path} - <<'JSON'`, JSON.stringify(data, null, 2), 'JSON');
  }
  if (target.record !== 'none') lines.push('', ...holderScript(target.record.mount, installation, by));
  if ('approle' in target.auth) {
    const { mount, secret_id: reference } = target.auth.approle;
    lines.push(
      '',
      `# The broker's secret id, for ${reference}. Each run makes another; the old ones stay good until they are destroyed.`,
      `# "$bao" write -f -field=secret_id auth/${mount}/role/${brokerName}/secret-id`,
    );
  }
  return `${lines.join('\n')}\n`;
}

function holderScript(mount: string, installation: string, by: PreparedBy | undefined): readonly string[] {
  const record = (epoch: string, options?: object): string =>
    JSON.stringify({
      ...(options === undefined ? {} : { options }),
      data: { installation, epoch: 0, store: by?.store ?? null, tenure: by?.tenure ?? null, beat: 0 },
    }).replace('"epoch":0', `"epoch":${epoch}`);
  const read = `"$bao" kv get -mount=${mount} -field="$1" holder`;
  return [
    '# A member of the record; nothing where there is no record yet. Any other failure is the end: what can not be read is not overwritten.',
    'held() {',
    `  if said=$(${read} 2>/dev/null); then echo "$said"; return; fi`,
    `  said=$(${read} 2>&1 >/dev/null) || true`,
    '  case $said in',
    '    *"No value found"*) ;;',
    // A mount that was just made.
    '    *"pgrading from non-versioned"*) sleep 1; held "$1" ;;',
    '    *) echo "who holds the target can not be read: $said" >&2; exit 1 ;;',
    '  esac',
    '}',
    ...(by?.tenure === undefined
      ? [
          '# Who holds it. What another installation holds is left alone: only if that one is gone, mayfly target adopt.',
          'holder=$(held installation)',
          `if [ -z "$holder" ]; then`,
          `"$bao" write ${mount}/data/holder - <<'JSON'`,
          // Should another have begun one meanwhile, this fails.
          record('1', { cas: 0 }),
          'JSON',
          `elif [ "$holder" != ${installation} ]; then echo "held by installation $holder" >&2; exit 1; fi`,
        ]
      : [
          '# Adopted: whoever held it before can do nothing here any more.',
          'epoch=$(held epoch)',
          `"$bao" write ${mount}/data/holder - <<JSON`,
          record('$((${epoch:-0} + 1))'),
          'JSON',
        ]),
  ];
}
