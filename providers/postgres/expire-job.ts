import { ProviderError } from '../../src/provider.ts';
import { expireLogin } from './prepare-bound.ts';
import type { PostgresTarget } from './schema.ts';

/**
 * A Kubernetes CronJob that calls `mayfly.expire()` once a minute, on the primary and on each listed standby, with a login
 * that may do only that. Holds no secret.
 * @param target Its name in the catalog.
 * @throws ProviderError `misconfigured`
 */
export function expireJob(target: string, config: PostgresTarget): string {
  if (config.mode !== 'definer') {
    throw new ProviderError('misconfigured', `in the mode ${config.mode} prepare makes no login for it`);
  }
  const login = expireLogin(config);
  if (login === null) {
    throw new ProviderError('misconfigured', `the login ${config.user} leaves no room for _expire in 63 bytes`);
  }
  const name = `mayfly-expire-${target}`.slice(0, 52).replace(/-+$/, '');
  const ca = config.ca_pem !== undefined || config.ca_file !== undefined;
  // A server that is down fails its own container alone.
  const servers = [config, ...(config.standbys ?? [])];
  const env: readonly (readonly [string, string])[] = [
    ['PGDATABASE', config.database],
    ['PGUSER', login],
    ['PGSSLMODE', config.sslmode],
    ...(ca
      ? [['PGSSLROOTCERT', '/etc/mayfly-expire/ca.pem'] as const]
      : config.sslmode === 'verify-full'
        ? [['PGSSLROOTCERT', 'system'] as const]
        : []),
    ['PGCONNECT_TIMEOUT', '10'],
    ['PGAPPNAME', 'mayfly expire'],
  ];
  const quoted = (text: string): string => JSON.stringify(text);
  const container = ({ host, port }: { readonly host: string; readonly port: number }, place: number): string =>
    `            - name: expire${place === 0 ? '' : `-standby-${place}`}
              image: postgres:18-alpine
              command: [psql, --no-psqlrc, --no-password, --set=ON_ERROR_STOP=1, --command=SELECT mayfly.expire()]
              securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
              resources: { requests: { cpu: 10m, memory: 16Mi }, limits: { memory: 64Mi } }
              env:
${[['PGHOST', host] as const, ['PGPORT', String(port)] as const, ...env].map(([key, value]) => `                - { name: ${key}, value: ${quoted(value)} }`).join('\n')}
                - { name: PGPASSWORD, valueFrom: { secretKeyRef: { name: ${name}, key: password } } }
${
  ca
    ? `              volumeMounts:
                - { name: ca, mountPath: /etc/mayfly-expire, readOnly: true }
`
    : ''
}`;
  return `# Ends open sessions of ${target} past their deadline with the whole broker down. Once before:
#   as an administrator of the target:  \\password ${login.replaceAll('\n', ' ')}
#   kubectl create secret generic ${name} --from-literal=password=…${ca ? ' --from-file=ca.pem=…' : ''}
# It must not share what the broker may lose: another node, the database's own network.
# mayfly target check says when it last ran${config.standbys === undefined ? '' : ' on the primary'}.
apiVersion: batch/v1
kind: CronJob
metadata:
  name: ${name}
spec:
  schedule: "* * * * *"
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 30
  successfulJobsHistoryLimit: 1
  failedJobsHistoryLimit: 3
  jobTemplate:
    spec:
      backoffLimit: 1
      activeDeadlineSeconds: 50
      template:
        spec:
          restartPolicy: Never
          automountServiceAccountToken: false
          securityContext: { runAsNonRoot: true, runAsUser: 70, seccompProfile: { type: RuntimeDefault } }
          containers:
${servers.map(container).join('')}${
  ca
    ? `          volumes:
            - { name: ca, secret: { secretName: ${name}, items: [{ key: ca.pem, path: ca.pem }] } }
`
    : ''
}`;
}
