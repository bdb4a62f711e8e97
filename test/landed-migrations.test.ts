import { expect, test } from 'vitest';
import { readMigrations } from '../src/store/migrate.ts';

/** A store that has run a file refuses to start with another of its name: what has been released is never edited, only followed. */
const LANDED = {
  '0001_the-house': 'a6210e3a18e29d1f18be17ba160817e5a6ed13ce74e603acd7d62311fa4ae698',
  '0002_issuing': '6feb8375607a61e2edae74c506b1dafb2403dc1a01c5394fdabb315319f6de63',
  '0003_operating': '44a41f0bed93a3fc10145e2ebf611c719125fa9a552f67d8ffc5865bde00d6c8',
  '0004_reconciling': 'fc3a0d1e2d41e7b4bb17763b8783b9a100630acc4da738cf122dc85bb58e990e',
  '0005_guarantees': '8cbc3ab9d6d18bd01004c6be8069cd08d9ada83bb291d3a486510a4e78c3f0d0',
  '0006_remembering': '53156b14a3c0e90494e94fe9414bfd6b3eb834863356b1c83e38f0e90dbb85a1',
  '0007_proofs': '67f46ae9c7cab86fb041860594d2e01bb136f467613bb9611eb8318e41f3e796',
  '0008_nonces': 'c4036205299b132d64661f1acdbcde8f2d38cbc90c492f4fa007b99d7a374767',
  '0009_delegation': '635da0d4351558f9f8799ea3da22a64d9e9e1635ff56dd9b193dd3555e7a488d',
  '0010_operators': 'f9b7eaa918e163f5f81b585c7e001388c49282e61b4c9faa72443e74eff8d3af',
  '0011_session-issuers': '2429214ce9d0b6906a4d438acbd6aa53c6ff713e35c8b1c9756d276537ab25d1',
  '0012_kill': 'c6fe64132f778f9bd989e055238348e5ba2f1c234bfa9d1a6844f32b30d44767',
  '0013_drift': 'd2cd8f663004a3312908867e857a48c4513c0319b8016e050ae903297b82ac33',
  '0014_history': '200bc9e7de28e90a69cac6d260b5886ceea6ba7c9995921b4d6448332f4350ef',
  '0015_limits': '7b0eafe1e4e0a600af9f30816035dc8018f9d303ec4f4278c871fd7d5e20a6d1',
  '0016_evaluations': '1978216d7a312521bb29db7e8190421a240d85c455d549691b7c252a955c5aee',
  '0017_approvals': 'db51f2f10e16353db4fea5486c23614e8e225dd70d233cb3d1e591fc8ead1417',
  '0018_signals': '7d894729864ca040588749fe0dabeadad0957bbb153e6cffe8bbfbc4497afe00',
  '0019_second-person': '98e6ca702d83f9475c703ba29e8b0696ea3983015022a301d2bbfb450c3e6a49',
  '0020_webhooks': '2a253037794c0bfd572a437bb973012e36c5a09a27276a01011a2acb44bb49d8',
  '0021_uses': '19c92d2618a9a6937fc2c3dcca1e4ed3f1d730cbe111cfea591ff52678f209cd',
};

test('what has landed of the schema is never edited', () => {
  expect(Object.fromEntries(readMigrations('migrations'))).toMatchObject(LANDED);
});
