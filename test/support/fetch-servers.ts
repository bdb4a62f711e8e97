import { buildGoServer, type GoServer } from './go-server.ts';

/**
 * `npm run test:servers -- postgres spire`: fills the cache of test servers, outside the repository, with what is named, or with
 * the PostgreSQL versions alone: the others are built from their sources, which takes minutes and a Go, or need Java or Python.
 */
const fetchers: Readonly<Record<string, () => Promise<unknown>>> = {
  postgres: () => import('./fetch-postgres.ts'),
  ministack: async () => console.log(`MiniStack: ${await (await import('./ministack.ts')).fetchMiniStack()}`),
  openbao: async () => await built((await import('./openbao.ts')).openbaoSources),
  vault: async () => await built((await import('./vault-core.ts')).vaultCoreSources),
  spire: async () => await built((await import('./spire.ts')).spireSources),
  kubernetes: async () => await built((await import('./kubernetes.ts')).kubernetesSources),
  keycloak: async () => console.log(`Keycloak: ${await (await import('./keycloak.ts')).fetchKeycloak()}`),
};
const names = process.argv.length > 2 ? process.argv.slice(2) : ['postgres'];
for (const name of names) {
  const fetcher = fetchers[name];
  if (fetcher === undefined) throw new Error(`not one of ${Object.keys(fetchers).join(', ')}: ${name}`);
  await fetcher();
}

async function built(server: GoServer): Promise<void> {
  console.log(`${server.name}: ${await buildGoServer(server)}`);
}
