import { z } from 'zod';
import type { KubernetesSource } from '../../catalog/types.ts';
import { readTokenClaims, refuseClaim, requireType, type Verifier } from './source.ts';

/** Names have no colon, so that `sub` can be read in one way only. */
const name = z.string().regex(/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/, 'must be a Kubernetes name');
const uid = z.string().regex(/^[A-Za-z0-9-]{1,64}$/, 'must be a uid');
const object = z.object({ name, uid });

const boundSchema = z.object({
  sub: z.string(),
  'kubernetes.io': z.object({
    namespace: name,
    serviceaccount: object,
    pod: object,
    // Since Kubernetes 1.30.
    node: object.optional(),
  }),
});

/**
 * Tokens that the kubelet projects into a pod. A token that is bound to no pod (`kubectl create token`, or a secret of
 * the old kind) is refused: it would have no instance.
 */
export const believeKubernetes: Verifier<KubernetesSource> = (_source, token) => {
  requireType(token, [undefined, 'JWT']);
  const { sub, 'kubernetes.io': bound } = readTokenClaims(boundSchema, token.claims);
  const subject = `system:serviceaccount:${bound.namespace}:${bound.serviceaccount.name}`;
  if (sub !== subject) refuseClaim('sub', 'is not the service account that `kubernetes.io` names');
  const { pod, node, serviceaccount } = bound;
  const details = { service_account_uid: serviceaccount.uid, ...(node && { node: node.name, node_uid: node.uid }) };
  return { subject, instance: { id: pod.uid, details } };
};
