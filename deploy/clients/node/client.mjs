// Calls a Pointsman dispatcher: node client.mjs HOST:PORT "A question" [TENANT or API key]
// The contract is read from protos/ at start; nothing is generated.
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [address, question, who = "default"] = process.argv.slice(2);
if (!address || !question) {
  console.error('usage: node client.mjs HOST:PORT "A question" [TENANT or API key]');
  process.exit(2);
}

const protos = process.env.POINTSMAN_PROTOS ?? fileURLToPath(new URL("../../../protos", import.meta.url));
const definition = loader.loadSync("pointsman/dispatcher/v1/dispatcher.proto", {
  includeDirs: [protos],
  keepCase: true,
  longs: String, // nano-USD may be beyond what a JavaScript number holds exactly
  enums: String,
  oneofs: true,
});
const { DispatcherService } = grpc.loadPackageDefinition(definition).pointsman.dispatcher.v1;
// dns:/// with several addresses: calls go to all of them in turn.
const client = new DispatcherService(address, grpc.credentials.createInsecure(), {
  "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
});

const metadata = new grpc.Metadata();
if (who.startsWith("pmk_")) metadata.set("authorization", `Bearer ${who}`);
else metadata.set("x-pointsman-tenant", who);

const chat = { messages: [{ role: "ROLE_USER", content: [{ text: question }] }], max_tokens: 100 };
const deadline = () => ({ deadline: Date.now() + 30_000 });

const call = (method, request) =>
  new Promise((resolve, reject) =>
    client[method](request, metadata, deadline(), (error, answer) => (error ? reject(error) : resolve(answer))),
  );

try {
  const { decision } = await call("Route", { chat });
  console.log(`would go ${decision.tier} (${decision.reason})`);

  const answer = await call("Complete", { chat });
  console.log(`${answer.decision.model}: ${answer.choices[0].content}`);
  console.log(`cost ${answer.decision.cost_nano_usd} nano-USD`);

  const stream = client.StreamComplete({ chat }, metadata, deadline());
  let text = "";
  for await (const event of stream) {
    if (event.event === "delta") text += event.delta.content;
    if (event.event === "finished") console.log(`streamed: ${text} (${event.finished.finish_reasons[0]})`);
  }
} catch (error) {
  // The dispatcher's words say what to mend.
  console.error(`${grpc.status[error.code]}: ${error.details}`);
  process.exitCode = 1;
} finally {
  client.close();
}
