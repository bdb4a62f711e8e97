/**
 * `npm run test:servers -- postgres openbao`: fills the cache of test servers, outside the repository, with what is named, or with
 * the PostgreSQL versions alone: OpenBao is built from source, which takes minutes and a Go.
 */
const fetchers: Readonly<Record<string, () => Promise<unknown>>> = {
  postgres: () => import('./fetch-postgres.ts'),
  openbao: async () => {
    const { buildOpenbao } = await import('./openbao.ts');
    console.log(`OpenBao: ${buildOpenbao()}`);
  },
};
const names = process.argv.length > 2 ? process.argv.slice(2) : ['postgres'];
for (const name of names) {
  const fetcher = fetchers[name];
  if (fetcher === undefined) throw new Error(`not one of ${Object.keys(fetchers).join(', ')}: ${name}`);
  await fetcher();
}
