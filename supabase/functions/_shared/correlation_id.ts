const SANE = /^[A-Za-z0-9._:-]{1,64}$/;

/** The caller's correlation id when it is safe to log and to pass on, else a new one. */
export function correlationIdOf(headers: Headers, newId: () => string): string {
  const sent = headers.get("x-correlation-id");
  return sent !== null && SANE.test(sent) ? sent : newId();
}
