import { expect, test } from "vitest";
import { ClientNetworks, clientNetwork, OTHER_NETWORKS } from "./client-networks.ts";

test("a network is an IPv4 address, or 64 bits of an IPv6 address", () => {
  expect(clientNetwork("192.0.2.1")).toBe("192.0.2.1");
  expect(clientNetwork("::ffff:192.0.2.1")).toBe("192.0.2.1");
  expect(clientNetwork("2001:db8:0:1::1")).toBe(clientNetwork("2001:db8:0:1:ffff::2"));
  expect(clientNetwork("2001:db8:0:1::1")).not.toBe(clientNetwork("2001:db8:0:2::1"));
  for (const ip of [undefined, "", "x"]) expect(clientNetwork(ip)).toBe("unknown");
});

test("a client with 65,536 networks has few names, and takes no room from others", () => {
  const networks = new ClientNetworks({ maxOfOwner: 100, keepMs: 1000, now: () => 0 });
  const names = new Set<string>();
  for (let i = 0; i < 65_536; i++) names.add(networks.nameOf(`2001:db8:0:${i.toString(16)}::1`));
  expect(names.size).toBe(33);
  expect(networks.nameOf("192.0.2.1")).toBe("192.0.2.1");
  expect(networks.nameOf("2001:db8:1:5::9")).toBe(clientNetwork("2001:db8:1:5::1"));
  // One that has a name keeps it.
  expect(networks.nameOf("2001:db8:0:5::9")).toBe(clientNetwork("2001:db8:0:5::1"));
});

test("more networks than there is room for share a name, until others have not come for a while", () => {
  let nowMs = 0;
  const networks = new ClientNetworks({ maxOfOwner: 100, keepMs: 1000, now: () => nowMs });
  for (let i = 0; i < 1000; i++) networks.nameOf(`10.0.${i >>> 8}.${i & 255}`, "mallory");
  expect(networks.nameOf("192.0.2.1", "mallory")).toBe(OTHER_NETWORKS);
  expect(networks.knownNameOf("192.0.2.1", "mallory")).toBeUndefined();
  expect(networks.nameOf("192.0.2.1", "alice")).toBe("192.0.2.1");
  nowMs = 1001;
  expect(networks.nameOf("192.0.2.1", "mallory")).toBe("192.0.2.1");
  expect(networks.knownNameOf("192.0.2.1", "mallory")).toBe("192.0.2.1");
});
