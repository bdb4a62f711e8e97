/** An error of AWS's own, which a client of the SDK throws by that name. */
export class Refusal extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function denied(action: string): Refusal {
  return new Refusal(403, 'AccessDenied', `not authorized to perform: ${action}`);
}

export function invalid(message: string): Refusal {
  return new Refusal(400, 'ValidationError', message);
}
