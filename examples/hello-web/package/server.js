// A small web service: it says hello, and tells load balancers that it is well.
const fs = require("fs");
const http = require("http");
const path = require("path");

const config = JSON.parse(fs.readFileSync(path.join(__dirname, "config.json"), "utf8"));

http
  .createServer((request, response) => {
    if (request.url === "/health") {
      response.writeHead(200, { "Content-Type": "application/json" });
      response.end(JSON.stringify({ status: "ok", version: config.version, environment: config.environment, target: config.target, pid: process.pid }));
      return;
    }
    response.writeHead(200, { "Content-Type": "text/plain; charset=utf-8" });
    response.end(`${config.greeting}\nVersion ${config.version} in ${config.environment}, on ${config.target}.\n`);
  })
  .listen(Number(config.port), "127.0.0.1", () => console.log(`listening on 127.0.0.1:${config.port}`));
