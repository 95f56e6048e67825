// The labels of pictures with Node.js: `npm ci`, then `node classify.js MODEL PICTURE...`; $INFERRY_SERVER says where
// the server is. The messages are read from the .proto itself, so nothing is generated.

const { readFileSync } = require("node:fs");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const PROTO = process.env.INFERRY_PROTO || path.join(__dirname, "../../proto");
const TIMEOUT_S = 10;

const definition = protoLoader.loadSync("inferry_proto/classifier.proto", { includeDirs: [PROTO], keepCase: true });
const { ImageClassifier } = grpc.loadPackageDefinition(definition).inferry.v1;

const [model, ...pictures] = process.argv.slice(2);
const client = new ImageClassifier(
  process.env.INFERRY_SERVER || "127.0.0.1:8001",
  grpc.credentials.createInsecure(),
);
const request = { model_name: model, top_k: 1, images: pictures.map((file) => ({ encoded: readFileSync(file) })) };

client.Classify(request, { deadline: Date.now() + TIMEOUT_S * 1000 }, (error, reply) => {
  if (error) {
    console.error(`${grpc.status[error.code]}: ${error.details}`);
    process.exitCode = 1;
  } else {
    reply.results.forEach(({ classifications: [best] }, number) => {
      console.log(`${pictures[number]}  ${best.label}  ${(100 * best.probability).toFixed(2)}%`);
    });
  }
  client.close();
});
