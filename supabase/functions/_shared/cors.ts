/** Browsers of any origin may call: access is decided by the token, never by a cookie. */
export const CORS_HEADERS = {
  "access-control-allow-origin": "*",
  "access-control-expose-headers": "x-correlation-id, retry-after, etag, " +
    "content-disposition, export-after-seq, export-until-seq, export-end-seq",
} as const;

const REQUEST_HEADERS = [
  "authorization",
  "apikey",
  "content-type",
  "content-encoding",
  "if-none-match",
  "x-client-info",
  "x-correlation-id",
  "x-region",
];

/** The answer to a browser that asks before it calls. */
export function preflightResponse(methods: readonly string[]): Response {
  return new Response(null, {
    status: 204,
    headers: {
      ...CORS_HEADERS,
      "access-control-allow-methods": [...methods, "OPTIONS"].join(", "),
      "access-control-allow-headers": REQUEST_HEADERS.join(", "),
      "access-control-max-age": "86400",
    },
  });
}
