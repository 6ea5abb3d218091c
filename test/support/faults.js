/** Loaded into a server under test: has it meet with an error that nothing of it catches, when the test says so. */
import { connect, createServer } from "node:net";

const fault = () => Object.assign(new TypeError("a-key-in-a-message"), { code: "ERR_OF_A_TEST" });

const FAULTS = {
  reject: () => void Promise.reject(fault()),
  "reject a text": () => void Promise.reject("a-key-in-a-message"),
  throw: () => {
    const server = createServer((socket) => socket.end("x")).listen(0, "127.0.0.1", () => {
      const socket = connect(server.address().port, "127.0.0.1");
      socket.on("close", () => server.close());
      socket.once("data", () => {
        throw fault();
      });
    });
  },
};

process.on("message", (message) => {
  if (!Object.hasOwn(FAULTS, message)) return;
  FAULTS[message]();
  setTimeout(() => process.send("done"), 200);
});
