import { setTimeout as pause } from 'node:timers/promises';
import { type ApprovalView, approvalsPageBody, approvalView } from '../../src/http/approval-bodies.ts';
import { ask, type Reply } from './ask.ts';
import type { House } from './house.ts';

export const INVOICES = 'ledger-db/read-invoices';
export const PAYMENTS = 'ledger-db/read-payments';

/** Who they are: known by their subject. `root` is an admin, and in no group. */
const people = `
      roles: { root: [admin], vera: [viewer], olga: [operator], fay: [approver], frank: [approver], sid: [approver], dana: [approver], dev-operator: [operator, approver],
        agent-recon: [approver], noel: [approver], ellen: [{ roles: [approver], scope: { owner: team-else } }] },
      groups: { fay: [finance], frank: [finance, security], sid: [security], dana: [finance], agent-recon: [finance], ellen: [finance], dev-operator: [finance], vera: [finance], olga: [finance] }`;

export const FINANCE = `@id("payments-approved") @max_ttl("2m") @require_approval("finance")
permit (principal is Mayfly::Task, action in [Mayfly::Action::"issue", Mayfly::Action::"renew", Mayfly::Action::"retain"], resource == Mayfly::Entitlement::"ledger-db/read-payments")
when { principal.phase != "closing" };
`;
export const SECURITY = `@id("payments-secured") @require_approval("security")
permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"ledger-db/read-payments");
`;
const OPEN = `@id("read-invoices") @max_ttl("5m")
permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"ledger-db/read-invoices");
`;

/** The house's catalog where payments are to be approved. */
export function approvalFiles(
  files: Readonly<Record<string, string>>,
  policies = FINANCE,
  subjects = 'subjects: [{ operators: dev-operators, prefix: "user:" }],',
): Record<string, string> {
  const trust = (files['trust.yaml'] ?? '')
    .replace('claim: roles', 'claim: sub')
    .replace(/\n {6}roles: \{[^}]*\}/, people)
    .replace('max_task_seconds', `${subjects}\n      max_task_seconds`);
  return { ...files, 'trust.yaml': trust, 'policies/test.cedar': `${OPEN}${policies}` };
}

/** A grant that waits. */
export interface Waiting {
  readonly task: string;
  readonly grant: string;
  readonly approval: string;
}

/** Those who ask and those who approve, over HTTP. */
export class Approving {
  readonly house: House;

  constructor(house: House) {
    this.house = house;
  }

  async operator(who: string, method: string, path: string, body?: object, url = this.house.url): Promise<Reply> {
    const { token } = await this.house.issuer.signOperatorToken({
      ...{ subject: who, roles: ['viewer'], audience: this.house.url, ttl_seconds: 900 },
    });
    return await ask(url, method, path, { token, ...(body && { body }) });
  }

  async agent(method: string, path: string, body?: object, more: { url?: string; key?: string } = {}): Promise<Reply> {
    const { url = this.house.url, key } = more;
    const headers = key === undefined ? {} : { 'idempotency-key': key };
    return await ask(url, method, path, { token: await this.house.token(), headers, ...(body && { body }) });
  }

  async open(subject = 'user:dana'): Promise<string> {
    const request = await this.house.sign({ phase: 'execute', entitlements: [INVOICES, PAYMENTS], subject });
    return (await this.house.client().openTask(request)).task.id;
  }

  async wait(task?: string, body: object = {}, key?: string): Promise<Waiting> {
    const of = task ?? (await this.open());
    const asked = { entitlement: PAYMENTS, justification: 'invoice 7 is disputed', ttl_seconds: 60, ...body };
    const reply = await this.agent('POST', `/v1/tasks/${of}/grants`, asked, key === undefined ? {} : { key });
    if (reply.status !== 202) throw new Error(`it does not wait: ${reply.status} ${String(reply.body['code'])}`);
    const { grant, approval } = reply.body as { grant: { id: string }; approval: { id: string } };
    return { task: of, grant: grant.id, approval: approval.id };
  }

  /** Waiting, and approved. */
  async approved(task?: string, body?: object): Promise<Waiting> {
    const waiting = await this.wait(task, body);
    const { status } = await this.decide('fay', waiting.approval, 'approve');
    if (status !== 200) throw new Error(`it is not approved: ${status}`);
    return waiting;
  }

  async decide(who: string, id: string, decision: string, url?: string): Promise<Reply> {
    return await this.operator(who, 'POST', `/v1/approvals/${id}`, { decision, reason: `${who} says so` }, url);
  }

  async collect(grant: string, body?: object, url?: string): Promise<Reply> {
    return await this.agent('POST', `/v1/grants/${grant}/collect`, body, url === undefined ? {} : { url });
  }

  async shown(id: string): Promise<ApprovalView> {
    return approvalView.parse((await this.operator('vera', 'GET', `/v1/approvals/${id}`)).body);
  }

  async listed(query = ''): Promise<readonly ApprovalView[]> {
    const reply = await this.operator('vera', 'GET', `/v1/approvals${query}`);
    return approvalsPageBody.parse(reply.body).items;
  }

  async stateOf(grant: string): Promise<unknown> {
    return (await this.agent('GET', `/v1/grants/${grant}`)).body['state'];
  }

  /** What became of both, once it did. */
  async until({ grant, approval }: Waiting, states: readonly [grant: string, approval: string]): Promise<ApprovalView> {
    const look = async () => [await this.stateOf(grant), (await this.shown(approval)).state].join(' ');
    const end = performance.now() + 30_000;
    for (let seen = await look(); seen !== states.join(' '); seen = await look()) {
      if (performance.now() > end) throw new Error(`it is ${seen}, not ${states.join(' ')}`);
      await pause(50);
    }
    return await this.shown(approval);
  }

  /** Its time is over from now on. */
  async expire({ approval }: Waiting): Promise<void> {
    await this.house.onStore(`UPDATE mayfly.approvals SET expires_at = clock_timestamp() WHERE id = $1`, [
      approval.slice(4),
    ]);
  }

  /** Types of the events about that grant, in order. */
  async eventsOf({ grant }: Waiting): Promise<string[]> {
    const rows = await this.house.onStore<{ type: string }>(
      'SELECT type FROM mayfly.audit_events WHERE grant_id = $1 ORDER BY ts, id',
      [grant.slice(4)],
    );
    return rows.map(({ type }) => type);
  }
}
