/** Answers, for each line `{"account_id", "signal"}`, what TypeScript makes of the signal. */
import { problemOf, signalId } from "../../supabase/functions/_shared/signal.ts";

const lines = Deno.stdin.readable.pipeThrough(new TextDecoderStream()).pipeThrough(splitLines());
const encoder = new TextEncoder();
for await (const line of lines) {
  const { account_id, signal } = JSON.parse(line);
  const code = problemOf(signal);
  const signal_id = code === null ? await signalId(account_id, signal) : null;
  await Deno.stdout.write(encoder.encode(JSON.stringify({ code, signal_id }) + "\n"));
}

function splitLines(): TransformStream<string, string> {
  let rest = "";
  return new TransformStream({
    transform(chunk, controller) {
      const parts = (rest + chunk).split("\n");
      rest = parts.pop() ?? "";
      for (const part of parts) controller.enqueue(part);
    },
  });
}
