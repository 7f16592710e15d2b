import { ApiError } from "./errors.ts";

/**
 * The bytes of a JSON body, decompressed, never more than `limit` of them.
 *
 * The limit holds for what is sent and for what it unpacks to, and reading stops where it is
 * passed, so a small body that would unpack to gigabytes costs no more than an honest one.
 */
export async function readBody(
  request: Request,
  limit: number,
  tooLarge: () => ApiError = () => new ApiError("batch_too_large"),
): Promise<Uint8Array<ArrayBuffer>> {
  const encoding = contentEncoding(request.headers);
  if (!isJson(request.headers.get("content-type"))) throw new ApiError("unsupported_media_type");
  const sent = await readSent(request, limit, tooLarge);
  if (encoding === "identity") return sent;
  const unpacked = new Blob([sent]).stream().pipeThrough(new DecompressionStream("gzip"));
  try {
    return await collect(unpacked, limit, tooLarge);
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError("invalid_json", "Cannot read the body: it is not valid gzip.");
  }
}

/** An announced length is all that HTTP will deliver, so it is read at once: much faster. */
async function readSent(
  request: Request,
  limit: number,
  tooLarge: () => ApiError,
): Promise<Uint8Array<ArrayBuffer>> {
  const announced = request.headers.get("content-length");
  if (announced === null) return await collect(request.body, limit, tooLarge);
  if (Number(announced) > limit) throw tooLarge();
  return new Uint8Array(await request.arrayBuffer());
}

/** The JSON value in the bytes, and the text it was written as. */
export function parseJson(bytes: Uint8Array): { readonly text: string; readonly value: unknown } {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return { text, value: JSON.parse(text) };
  } catch {
    throw new ApiError("invalid_json");
  }
}

function contentEncoding(headers: Headers): "identity" | "gzip" {
  const encoding = (headers.get("content-encoding") ?? "identity").trim().toLowerCase();
  if (encoding !== "identity" && encoding !== "gzip") throw new ApiError("unsupported_media_type");
  return encoding;
}

function isJson(contentType: string | null): boolean {
  return contentType?.split(";", 1)[0]?.trim().toLowerCase() === "application/json";
}

async function collect(
  stream: ReadableStream<Uint8Array> | null,
  limit: number,
  tooLarge: () => ApiError,
): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of stream ?? []) {
    length += chunk.length;
    if (length > limit) throw tooLarge();
    chunks.push(chunk);
  }
  const bytes = new Uint8Array(length);
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.length;
  }
  return bytes;
}
