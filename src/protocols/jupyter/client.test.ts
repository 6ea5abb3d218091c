import { expect, test } from "vitest";
import { Client } from "./client.ts";
import type { Connection } from "./connection.ts";
import { HELD_LIMITS, HeldMessages } from "./held-messages.ts";
import { Delivery, Message } from "./messages.ts";

const MIB = 1024 * 1024;

function deliver(clients: readonly Client[], text: string, isOutput = true): boolean[] {
  const message = new Message({ channel: "iopub", type: "x", session: "", parent: null, content: { text }, isOutput });
  const delivery = new Delivery(message);
  return clients.map((client) => client.send(delivery));
}

/** A connection that keeps what it is to send. */
class Sent {
  readonly contents: string[] = [];
  readonly notes: string[] = [];
  readonly connection = {
    send: (delivery: Delivery) => {
      this.contents.push(JSON.parse(delivery.frame("json").toString()).content.text);
    },
    tell: (text: string) => {
      this.notes.push(text);
    },
  } as unknown as Connection;
}

const clientsOf = (messages: HeldMessages, owner: string, count: number) =>
  Array.from({ length: count }, (_, at) => new Client({ id: `${at}`, owner, messages }));

test("a message that waits for many clients is held once, and comes to each", () => {
  const messages = new HeldMessages();
  const clients = clientsOf(messages, "a", 20);
  for (let at = 0; at < 7; at++) deliver(clients, String(at).repeat(MIB));
  expect(messages.bytes).toBeLessThan(7.2 * MIB);
  for (const client of clients) {
    const { contents, notes, connection } = new Sent();
    client.attach(connection);
    expect(contents.map((text) => text[0])).toEqual(["0", "1", "2", "3", "4", "5", "6"]);
    expect(notes).toEqual([]);
  }
  expect(messages.bytes).toBe(0);
});

test("what a message takes is its content alone, whatever was sent of it to others", () => {
  const messages = new HeldMessages();
  const [away, here] = clientsOf(messages, "a", 2) as [Client, Client];
  here.attach(new Sent().connection);
  const message = new Message({ channel: "iopub", type: "x", session: "", parent: null, content: { text: "a" } });
  const delivery = new Delivery(message);
  for (const client of [here, away]) client.send(delivery);
  expect(delivery.frame("json")).toBe(delivery.frame("json"));
  // It is written anew: it has kept no frame.
  expect(new Delivery(message).frame("json")).not.toBe(delivery.frame("json"));
  expect(new Delivery(message).frame("json")).toEqual(delivery.frame("json"));
});

test("all clients of a principal hold no more than it may, of whichever kernels they are; another principal's lose nothing", () => {
  const messages = new HeldMessages();
  const clients = clientsOf(messages, "a", 12);
  for (const client of clients) for (let at = 0; at < 7; at++) deliver([client], "x".repeat(MIB));
  expect(messages.bytes).toBeGreaterThan(HELD_LIMITS.ofPrincipal - 2 * MIB);
  expect(messages.bytes).toBeLessThanOrEqual(HELD_LIMITS.ofPrincipal);
  const [other] = clientsOf(messages, "b", 1) as [Client];
  for (let at = 0; at < 7; at++) deliver([other], "y".repeat(MIB));
  const [first, last, others] = [new Sent(), new Sent(), new Sent()];
  clients[0]?.attach(first.connection);
  clients.at(-1)?.attach(last.connection);
  other.attach(others.connection);
  expect([first.contents.length, last.contents.length, others.contents.length]).toEqual([7, 0, 7]);
  expect([first.notes, others.notes]).toEqual([[], []]);
  expect(last.notes).toEqual(["[7 messages of output were left out: this client was away.]\n"]);
  for (const client of clients) client.forget();
  expect(messages.bytes).toBe(0);
});

test("all principals together hold no more than the server may", () => {
  const messages = new HeldMessages();
  const clients = Array.from({ length: 6 }, (_, at) => clientsOf(messages, `p${at}`, 8)).flat();
  for (const client of clients) for (let at = 0; at < 7; at++) deliver([client], "x".repeat(MIB));
  expect(messages.bytes).toBeGreaterThan(HELD_LIMITS.inAll - 2 * MIB);
  expect(messages.bytes).toBeLessThanOrEqual(HELD_LIMITS.inAll);
  for (const client of clients) client.forget();
  expect(messages.bytes).toBe(0);
});

test("replies have room where output has none; a client that would hold more begins anew", () => {
  const messages = new HeldMessages();
  const clients = clientsOf(messages, "a", 10);
  for (const client of clients) for (let at = 0; at < 7; at++) deliver([client], "x".repeat(MIB));
  const before = messages.bytes;
  const last = clients.at(-1) as Client;
  expect(deliver([last], "output")).toEqual([true]);
  expect(deliver([last], "y".repeat(MIB), false)).toEqual([true]);
  expect(messages.bytes).toBeGreaterThan(before + MIB);
  const refused = clients.flatMap((client) =>
    Array.from({ length: 14 }, () => deliver([client], "z".repeat(MIB), false)[0]),
  );
  expect(refused).toContain(false);
  expect(messages.bytes).toBeLessThanOrEqual(2 * HELD_LIMITS.ofPrincipal);
});

test("for a client that was forgotten nothing is held, whatever its requests still come to", () => {
  const messages = new HeldMessages();
  const [client] = clientsOf(messages, "a", 1) as [Client];
  deliver([client], "a");
  client.forget();
  expect(deliver([client], "b", false)).toEqual([true]);
  expect(messages.bytes).toBe(0);
});
